//! How a command can fail, and the exit status that says so.

use std::process::ExitCode;

/// Why a command ended without having done its work. Shown in one line: what, where, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BenchError {
    /// The arguments cannot be honoured; exit status 2, like clap's own errors.
    #[error("{0}")]
    Usage(String),
    /// The experiment could not be run or did not succeed; exit status 1.
    #[error("{0}")]
    Failed(String),
    /// SIGINT or SIGTERM came before the work was done; what was finished by then has been told. Exit status 130, as a
    /// shell gives to what SIGINT ended.
    #[error("interrupted; only what was finished is told")]
    Interrupted,
}

impl BenchError {
    /// Arguments that cannot be honoured.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        BenchError::Usage(text.into())
    }

    /// An experiment that did not succeed.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        BenchError::Failed(text.into())
    }

    /// The status to exit with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            BenchError::Usage(_) => ExitCode::from(2),
            BenchError::Failed(_) => ExitCode::from(1),
            BenchError::Interrupted => ExitCode::from(130),
        }
    }
}

/// Puts `text` on one line: paragraphs are joined by semicolons.
pub(crate) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_paragraphs_become_one_line() {
        assert_eq!(one_line("error: this\n\n  tip: that\n"), "error: this; tip: that");
    }
}
