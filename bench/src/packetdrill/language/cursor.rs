//! A position in the text of a script, and what every part of the parser needs of it.

/// Where and why a script is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
}

/// Times are below this: a third of a year, so that a wait ends however many timers run during it.
const SECONDS_MAX: f64 = 1e7;

/// Result of reading a part of a script.
pub(crate) type Parsed<T> = Result<T, SyntaxError>;

/// The text and a position in it. Copying it is a way to look ahead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Cursor { text, at: 0 }
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// The text between `from` and here.
    pub(crate) fn since(&self, from: usize) -> &'a str {
        &self.text[from..self.at]
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    pub(crate) fn advance(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.text.len());
    }

    /// Line of the present position, the first being 1.
    pub(crate) fn line(&self) -> usize {
        1 + self.text[..self.at].bytes().filter(|byte| *byte == b'\n').count()
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> SyntaxError {
        let line_start = self.text[..self.at].rfind('\n').map_or(0, |newline| newline + 1);
        SyntaxError {
            line: self.line(),
            column: 1 + self.text[line_start..self.at].chars().count(),
            message: message.into(),
        }
    }

    /// What stands here, for a message.
    pub(crate) fn found(&self) -> String {
        match self.rest().split(char::is_whitespace).next() {
            None | Some("") if self.is_at_end() => "the end of the script".to_owned(),
            None | Some("") => "a blank".to_owned(),
            Some(word) => format!("`{}`", word.chars().take(40).collect::<String>()),
        }
    }

    pub(crate) fn expected(&self, what: &str) -> SyntaxError {
        self.error(format!("expected {what}, found {}", self.found()))
    }

    /// Skips blanks and comments: `// ...`, `/* ... */`, and lines that begin with `#`.
    pub(crate) fn skip_blanks(&mut self) -> Parsed<()> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.advance(rest.len() - trimmed.len());
            let starts_line =
                self.text[..self.at].rsplit('\n').next().is_none_or(|line| line.trim().is_empty());
            if trimmed.starts_with("//") || (trimmed.starts_with('#') && starts_line) {
                self.advance(trimmed.find('\n').unwrap_or(trimmed.len()));
            } else if trimmed.starts_with("/*") {
                let Some(end) = trimmed.find("*/") else {
                    return Err(self.error("the comment that begins here has no end"));
                };
                self.advance(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    /// Takes `token` after blanks if it stands here.
    pub(crate) fn take(&mut self, token: &str) -> Parsed<bool> {
        let mut ahead = *self;
        ahead.skip_blanks()?;
        if !ahead.rest().starts_with(token) {
            return Ok(false);
        }
        ahead.advance(token.len());
        *self = ahead;
        Ok(true)
    }

    /// Takes the word `word` after blanks if exactly it stands here.
    pub(crate) fn take_word(&mut self, word: &str) -> Parsed<bool> {
        let mut ahead = *self;
        ahead.skip_blanks()?;
        if ahead.word_here() != word {
            return Ok(false);
        }
        ahead.advance(word.len());
        *self = ahead;
        Ok(true)
    }

    pub(crate) fn require(&mut self, token: &str) -> Parsed<()> {
        if self.take(token)? {
            return Ok(());
        }
        self.skip_blanks()?;
        Err(self.expected(&format!("`{token}`")))
    }

    /// The letters, digits and underscores that stand right here.
    fn word_here(&self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        &rest[..end]
    }

    /// The next word after blanks.
    pub(crate) fn word(&mut self, what: &str) -> Parsed<&'a str> {
        self.skip_blanks()?;
        let word = self.word_here();
        if word.is_empty() {
            return Err(self.expected(what));
        }
        self.advance(word.len());
        Ok(word)
    }

    /// A decimal or hexadecimal number after blanks.
    pub(crate) fn integer(&mut self, what: &str) -> Parsed<i64> {
        self.skip_blanks()?;
        let start = *self;
        let negative = self.rest().starts_with('-');
        if negative {
            self.advance(1);
        }
        let word = self.word_here();
        let value = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
            Some(digits) => u64::from_str_radix(digits, 16).ok().map(|value| value as i64),
            None => word.parse::<i64>().ok(),
        };
        let Some(value) = value else {
            *self = start;
            return Err(self.expected(what));
        };
        self.advance(word.len());
        Ok(if negative { -value } else { value })
    }

    /// A number that fits `T`.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self, what: &str) -> Parsed<T> {
        self.skip_blanks()?;
        let start = *self;
        let value = self.integer(what)?;
        T::try_from(value).map_err(|_| start.error(format!("{what} {value} is out of range")))
    }

    /// A time in seconds, in microseconds.
    pub(crate) fn seconds(&mut self) -> Parsed<u64> {
        self.skip_blanks()?;
        let rest = self.rest();
        let mut end = 0;
        let mut dotted = false;
        for (index, c) in rest.char_indices() {
            // `0...0.2` is a number, an ellipsis and a number.
            let point = c == '.' && !dotted && !rest[index..].starts_with("..");
            if !c.is_ascii_digit() && !point {
                break;
            }
            dotted |= point;
            end = index + 1;
        }
        let seconds: Option<f64> = rest[..end].parse().ok();
        let Some(seconds) = seconds.filter(|seconds| *seconds < SECONDS_MAX) else {
            return Err(self.expected("a time in seconds"));
        };
        self.advance(end);
        Ok((seconds * 1e6).round() as u64)
    }

    /// A string in double quotes, after blanks.
    pub(crate) fn string(&mut self) -> Parsed<String> {
        self.delimited('"')
    }

    /// What stands between two of `delimiter`, with backslashes undone.
    pub(crate) fn delimited(&mut self, delimiter: char) -> Parsed<String> {
        self.require(&delimiter.to_string())?;
        let start = *self;
        let mut value = String::new();
        let mut escaped = false;
        for (index, c) in start.rest().char_indices() {
            match (escaped, c) {
                (true, _) => {
                    // Only the delimiter and the backslash itself are changed by a backslash.
                    if c != delimiter && c != '\\' {
                        value.push('\\');
                    }
                    value.push(c);
                    escaped = false;
                }
                (false, '\\') => escaped = true,
                (false, c) if c == delimiter => {
                    self.advance(index + c.len_utf8());
                    return Ok(value);
                }
                (false, c) => value.push(c),
            }
        }
        Err(start.error(format!("the text that begins here has no closing `{delimiter}`")))
    }

    /// Skips to the next line that looks like the beginning of a statement.
    pub(crate) fn skip_statement(&mut self) {
        loop {
            let Some(newline) = self.rest().find('\n') else {
                self.at = self.text.len();
                return;
            };
            self.advance(newline + 1);
            let line = self.rest().trim_start_matches([' ', '\t']);
            if line.is_empty() || line.starts_with('`') || begins_with_time(line) {
                return;
            }
        }
    }
}

/// Whether a line begins with a time: a number, with `+` before it or not, or `*`, and a blank, range or `...` after it.
fn begins_with_time(line: &str) -> bool {
    let number = line.trim_start_matches('+');
    let rest = number.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '*');
    let time = &number[..number.len() - rest.len()];
    let numeric = time == "*" || time.contains(|c: char| c.is_ascii_digit());
    numeric && rest.starts_with(|c: char| c.is_whitespace() || c == '~' || c.is_alphabetic())
}
