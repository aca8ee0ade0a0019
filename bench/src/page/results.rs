//! The JSON of one run, as the page reads it. Only what the contract promises is relied upon.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::BenchError;

/// Largest JSON file read: far above what any command writes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// File name.
    pub(crate) file: String,
    /// File name without its ending: unique in its folder.
    pub(crate) name: String,
    object: Map<String, Value>,
}

/// Reads every `*.json` of `folder`, in the order of their names. Files that are no results of this tool are returned by
/// name.
///
/// # Errors
/// The folder cannot be read, or holds no result.
pub(crate) fn load(folder: &Path) -> Result<(Vec<Loaded>, Vec<String>), BenchError> {
    let cannot = |what: &dyn std::fmt::Display| {
        BenchError::failed(format!(
            "cannot read {}: {what}; give the folder that 'bench all' or --json wrote to",
            folder.display()
        ))
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| cannot(&error))? {
        let path = entry.map_err(|error| cannot(&error))?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    // `oob` before `oob-tap`: what a file is called without its ending.
    paths.sort_by_key(|path| path.with_extension(""));
    let (mut runs, mut strangers) = (Vec::new(), Vec::new());
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let small = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= FILE_BYTES_MAX);
        let text = if small { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        match Loaded::parse(&file, &text) {
            Some(run) => runs.push(run),
            None => strangers.push(file),
        }
    }
    if runs.is_empty() {
        return Err(cannot(&"it holds no JSON of an experiment"));
    }
    Ok((runs, strangers))
}

impl Loaded {
    /// The run in `text`; `None` unless it is an object with `experiment` and a list of `results`.
    pub(crate) fn parse(file: &str, text: &str) -> Option<Self> {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { return None };
        object.get("experiment")?.as_str()?;
        object.get("results")?.as_array()?;
        let name = file.strip_suffix(".json").unwrap_or(file).to_owned();
        Some(Loaded { file: file.to_owned(), name, object })
    }

    /// Which command made it.
    pub(crate) fn experiment(&self) -> &str {
        self.object["experiment"].as_str().unwrap_or_default()
    }

    /// What it ran over.
    pub(crate) fn link(&self) -> &str {
        self.object.get("link").and_then(Value::as_str).unwrap_or_default()
    }

    /// The results.
    pub(crate) fn results(&self) -> impl Iterator<Item = Row<'_>> {
        self.list("results").iter().filter_map(Value::as_object).map(Row)
    }

    /// A list of the run, empty without one.
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        self.object.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Options as used.
    pub(crate) fn parameters(&self) -> Vec<(String, Value)> {
        self.members("parameters")
    }

    /// The machine.
    pub(crate) fn host(&self) -> Vec<(String, Value)> {
        self.members("host")
    }

    /// How quiet the machine was.
    pub(crate) fn noise(&self) -> Vec<(String, Value)> {
        self.members("noise")
    }

    /// Whether a signal ended it before all was measured.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.object.get("interrupted").and_then(Value::as_bool).unwrap_or(false)
    }

    /// A parameter that is one number.
    pub(crate) fn parameter(&self, name: &str) -> Option<f64> {
        self.object.get("parameters")?.get(name)?.as_f64().filter(|number| number.is_finite())
    }

    fn members(&self, name: &str) -> Vec<(String, Value)> {
        let object = self.object.get(name).and_then(Value::as_object);
        object.map(|o| o.iter().map(|(k, v)| (k.clone(), v.clone())).collect()).unwrap_or_default()
    }
}

/// One result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Row<'a> {
    fn at(&self, path: &str) -> Option<&'a Value> {
        let mut steps = path.split('.');
        let mut value = self.0.get(steps.next()?)?;
        for step in steps {
            value = value.get(step)?;
        }
        Some(value)
    }

    /// The number at a path such as `heartbeat.one_way_us.p50`.
    pub(crate) fn number(&self, path: &str) -> Option<f64> {
        self.at(path)?.as_f64().filter(|number| number.is_finite())
    }

    /// The text at a path.
    pub(crate) fn text(&self, path: &str) -> Option<&'a str> {
        self.at(path)?.as_str()
    }

    /// The variant, or the link where there are no variants.
    pub(crate) fn variant(&self) -> &'a str {
        self.text("variant").or_else(|| self.text("link")).unwrap_or("result")
    }

    /// What the runs of a figure lie between, where there were several.
    pub(crate) fn spread(&self, path: &str) -> Option<(f64, f64)> {
        let values = self.0.get("runs")?.get(path)?.as_array()?;
        let values = || values.iter().filter_map(Value::as_f64).filter(|value| value.is_finite());
        let least = values().reduce(f64::min)?;
        Some((least, values().reduce(f64::max)?))
    }
}
