//! Python text to tokens.

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Float(f64),
    Text(String),
    Name(String),
    Operator(&'static str),
}

/// Longer operators first.
const OPERATORS: [&str; 32] = [
    "**=", "//=", "<<", ">>", "<=", ">=", "==", "!=", "**", "//", "+=", "-=", "*=", "(", ")", "[", "]", ",",
    ".", "=", "<", ">", "+", "-", "*", "/", "%", "&", "|", "^", "~", ":",
];

/// Splits a statement. Says what cannot be read.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_digit() || is_point_number(rest) {
            number(rest, &mut all)?
        } else if first.is_alphabetic() || first == '_' {
            word(rest, &mut all)?
        } else if first == '"' || first == '\'' {
            string(rest, &mut all)?
        } else {
            let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
            let Some(operator) = operator else { return Err(format!("`{first}`")) };
            all.push(Token::Operator(operator));
            operator.len()
        };
        rest = rest[length..].trim_start();
    }
    Ok(all)
}

fn is_point_number(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next() == Some('.') && chars.next().is_some_and(|c| c.is_ascii_digit())
}

fn number(text: &str, all: &mut Vec<Token>) -> Result<usize, String> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let value =
            i64::from_str_radix(&digits[..end], 16).map_err(|_| format!("number {}", &text[..end + 2]))?;
        all.push(Token::Int(value));
        return Ok(end + 2);
    }
    let mut end = 0;
    let mut float = false;
    for (index, c) in text.char_indices() {
        let exponent_sign = matches!(c, '+' | '-') && text[..index].ends_with(['e', 'E']);
        if !(c.is_ascii_digit() || matches!(c, '.' | '_' | 'e' | 'E') || exponent_sign) {
            break;
        }
        float |= matches!(c, '.' | 'e' | 'E');
        end = index + 1;
    }
    let digits = text[..end].replace('_', "");
    let wrong = |_| format!("number {}", &text[..end]);
    all.push(if float {
        Token::Float(digits.parse().map_err(|_| wrong(()))?)
    } else {
        Token::Int(digits.parse().map_err(|_| wrong(()))?)
    });
    Ok(end)
}

fn word(text: &str, all: &mut Vec<Token>) -> Result<usize, String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let prefix = matches!(&text[..end], "f" | "r" | "b" | "u" | "F" | "R");
    if prefix && text[end..].starts_with(['"', '\'']) {
        return Ok(end + string(&text[end..], all)?);
    }
    all.push(Token::Name(text[..end].to_owned()));
    Ok(end)
}

fn string(text: &str, all: &mut Vec<Token>) -> Result<usize, String> {
    let quote = text.chars().next().unwrap_or('"');
    let mut value = String::new();
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        if escaped {
            value.push(if c == 'n' { '\n' } else { c });
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            // Neighbours are one string.
            if let Some(Token::Text(before)) = all.last_mut() {
                before.push_str(&value);
            } else {
                all.push(Token::Text(value));
            }
            return Ok(index + 1);
        } else {
            value.push(c);
        }
    }
    Err("string without an end".to_owned())
}

/// Splits code into statements with their line (from zero): at newlines and semicolons outside brackets and strings.
/// Comments are dropped, lines that end in a backslash joined.
pub(super) fn statements(code: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    let mut current = String::new();
    let (mut line, mut start, mut depth) = (0, 0, 0usize);
    let mut quote: Option<char> = None;
    let mut chars = code.chars().peekable();
    let mut finish = |current: &mut String, start: usize| {
        let text = core::mem::take(current);
        if !text.trim().is_empty() {
            all.push((start, text.trim_end().to_owned()));
        }
    };
    while let Some(c) = chars.next() {
        if current.trim().is_empty() {
            start = line;
        }
        match (quote, c) {
            (_, '\\') if chars.peek() == Some(&'\n') => {
                chars.next();
                line += 1;
                current.push(' ');
                continue;
            }
            (Some(_), '\\') => {
                current.push(c);
                current.extend(chars.next());
                continue;
            }
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, '#') => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
                continue;
            }
            _ => {}
        }
        let ends = quote.is_none() && depth == 0 && matches!(c, '\n' | ';');
        if ends {
            finish(&mut current, start);
        } else {
            current.push(if c == '\n' { ' ' } else { c });
        }
        line += usize::from(c == '\n');
    }
    finish(&mut current, start);
    all
}
