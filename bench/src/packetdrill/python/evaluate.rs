//! Statements to outcomes.

use core::fmt;
use std::collections::BTreeMap;

use super::{Node, Statement, Value};

/// Names that the code may use.
pub(crate) type Variables = BTreeMap<String, Value>;

/// How a block ends early.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// An assertion does not hold: its line within the block, and the message.
    Assertion { line: usize, message: String },
    /// A name that stands for nothing known.
    Unknown(String),
    /// Something Python would refuse as well.
    Error(String),
}

/// Runs a block. Assignments stay in `variables`.
pub(crate) fn run(statements: &[Statement], variables: &mut Variables) -> Result<(), Failure> {
    for statement in statements {
        match statement {
            Statement::Nothing => {}
            Statement::Assign { name, value } => {
                let value = evaluate(value, variables)?;
                variables.insert(name.clone(), value);
            }
            Statement::Evaluate(node) => {
                evaluate(node, variables)?;
            }
            Statement::Assert { line, test, message } => {
                if evaluate(test, variables)?.is_true() {
                    continue;
                }
                let message = match message {
                    Some(message) => evaluate(message, variables)?.to_string(),
                    None => String::new(),
                };
                return Err(Failure::Assertion { line: *line, message });
            }
        }
    }
    Ok(())
}

impl Value {
    fn is_true(&self) -> bool {
        match self {
            Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(value) => !value.is_empty(),
            Value::Tuple(items) => !items.is_empty(),
        }
    }

    fn int(&self) -> Option<i64> {
        match self {
            Value::Bool(value) => Some(i64::from(*value)),
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            other => other.int().map(|value| value as f64),
        }
    }

    fn order(&self, other: &Value) -> Option<core::cmp::Ordering> {
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            _ => match (self.int(), other.int()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => self.float()?.partial_cmp(&other.float()?),
            },
        }
    }

    fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Tuple(a), Value::Tuple(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b))
            }
            (Value::None, Value::None) => true,
            _ => self.order(other) == Some(core::cmp::Ordering::Equal),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(value) => f.write_str(if *value { "True" } else { "False" }),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Text(value) => f.write_str(value),
            Value::Tuple(items) => {
                let items: Vec<String> = items.iter().map(Value::to_string).collect();
                write!(f, "({})", items.join(", "))
            }
        }
    }
}

fn error(what: impl Into<String>) -> Failure {
    Failure::Error(what.into())
}

fn evaluate(node: &Node, variables: &Variables) -> Result<Value, Failure> {
    Ok(match node {
        Node::Literal(value) => value.clone(),
        Node::Name(name) => match variables.get(name) {
            Some(value) => value.clone(),
            None => return Err(Failure::Unknown(name.clone())),
        },
        Node::Not(operand) => Value::Bool(!evaluate(operand, variables)?.is_true()),
        Node::And(a, b) => {
            let a = evaluate(a, variables)?;
            if a.is_true() { evaluate(b, variables)? } else { a }
        }
        Node::Or(a, b) => {
            let a = evaluate(a, variables)?;
            if a.is_true() { a } else { evaluate(b, variables)? }
        }
        Node::Conditional { test, then, otherwise } => {
            let branch = if evaluate(test, variables)?.is_true() { then } else { otherwise };
            evaluate(branch, variables)?
        }
        Node::Unary(sign, operand) => unary(*sign, &evaluate(operand, variables)?)?,
        Node::Binary(operator, a, b) => binary(operator, &evaluate(a, variables)?, &evaluate(b, variables)?)?,
        Node::Compare(first, rest) => {
            let mut left = evaluate(first, variables)?;
            for (operator, right) in rest {
                let right = evaluate(right, variables)?;
                if !compare(operator, &left, &right)? {
                    return Ok(Value::Bool(false));
                }
                left = right;
            }
            Value::Bool(true)
        }
        Node::Tuple(items) => {
            Value::Tuple(items.iter().map(|item| evaluate(item, variables)).collect::<Result<_, _>>()?)
        }
        Node::Call(name, arguments) => {
            let arguments: Vec<Value> =
                arguments.iter().map(|argument| evaluate(argument, variables)).collect::<Result<_, _>>()?;
            call(name, &arguments)?
        }
    })
}

fn compare(operator: &str, a: &Value, b: &Value) -> Result<bool, Failure> {
    if operator == "in" {
        return match b {
            Value::Tuple(items) => Ok(items.iter().any(|item| item.equals(a))),
            _ => Err(error("`in` needs a tuple")),
        };
    }
    if operator == "==" || operator == "!=" {
        return Ok(a.equals(b) == (operator == "=="));
    }
    let order = a.order(b).ok_or_else(|| error(format!("{a} and {b} cannot be compared")))?;
    Ok(match operator {
        "<" => order.is_lt(),
        ">" => order.is_gt(),
        "<=" => order.is_le(),
        _ => order.is_ge(),
    })
}

fn unary(sign: char, operand: &Value) -> Result<Value, Failure> {
    match (sign, operand.int(), operand.float()) {
        ('-', Some(value), _) => Ok(Value::Int(value.wrapping_neg())),
        ('-', None, Some(value)) => Ok(Value::Float(-value)),
        ('+', Some(_), _) | ('+', _, Some(_)) => Ok(operand.clone()),
        ('~', Some(value), _) => Ok(Value::Int(!value)),
        _ => Err(error(format!("`{sign}` needs a number"))),
    }
}

fn binary(operator: &str, a: &Value, b: &Value) -> Result<Value, Failure> {
    if let (Value::Text(a), "+", Value::Text(b)) = (a, operator, b) {
        return Ok(Value::Text(format!("{a}{b}")));
    }
    if let (Value::Text(text), "%") = (a, operator) {
        // The text of a message: what matters is that its values are seen.
        return Ok(Value::Text(format!("{text} {b}")));
    }
    let range = || error("a number is too large");
    if let (Some(a), Some(b), true) = (a.int(), b.int(), operator != "/") {
        let shift = u32::try_from(b).ok().filter(|shift| *shift < 63);
        let value = match operator {
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            "*" => a.checked_mul(b),
            "//" | "%" if b == 0 => return Err(error("division by zero")),
            "//" => a.checked_div_euclid(b),
            "%" => a.checked_rem_euclid(b),
            "&" => Some(a & b),
            "|" => Some(a | b),
            "^" => Some(a ^ b),
            "<<" => shift.and_then(|shift| a.checked_mul(1 << shift)),
            ">>" => Some(a >> shift.unwrap_or(63)),
            _ => u32::try_from(b).ok().and_then(|power| a.checked_pow(power)),
        };
        return value.map(Value::Int).ok_or_else(range);
    }
    let (Some(a), Some(b)) = (a.float(), b.float()) else {
        return Err(error(format!("`{operator}` needs numbers")));
    };
    Ok(Value::Float(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" | "//" | "%" if b == 0.0 => return Err(error("division by zero")),
        "/" => a / b,
        "//" => (a / b).floor(),
        "%" => a.rem_euclid(b),
        "**" => a.powf(b),
        _ => return Err(error(format!("`{operator}` needs whole numbers"))),
    }))
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, Failure> {
    let one = || arguments.first().ok_or_else(|| error(format!("{name}() needs an argument")));
    let items = match arguments {
        [Value::Tuple(items)] => items.as_slice(),
        _ => arguments,
    };
    let best = |want: core::cmp::Ordering| {
        let mut items = items.iter();
        let first = items.next().ok_or_else(|| error(format!("{name}() of nothing")))?;
        Ok(items.fold(first, |best, item| if item.order(best) == Some(want) { item } else { best }).clone())
    };
    match name {
        "print" => Ok(Value::None),
        "min" => best(core::cmp::Ordering::Less),
        "max" => best(core::cmp::Ordering::Greater),
        "sum" => items.iter().try_fold(Value::Int(0), |sum, item| binary("+", &sum, item)),
        "len" => Ok(Value::Int(match one()? {
            Value::Text(text) => text.chars().count() as i64,
            _ => items.len() as i64,
        })),
        "bool" => Ok(Value::Bool(one()?.is_true())),
        "str" | "repr" => Ok(Value::Text(one()?.to_string())),
        "hex" => {
            let value = one()?.int().ok_or_else(|| error("hex() needs a whole number"))?;
            Ok(Value::Text(format!("{value:#x}")))
        }
        "pow" => match arguments {
            [a, b] => binary("**", a, b),
            _ => Err(error("pow() needs two arguments")),
        },
        _ => number_call(name, one()?),
    }
}

fn number_call(name: &str, argument: &Value) -> Result<Value, Failure> {
    let text = match argument {
        Value::Text(text) => text.trim().parse().ok().map(Value::Float),
        _ => None,
    };
    let argument = text.as_ref().unwrap_or(argument);
    match (name, argument.int(), argument.float()) {
        ("abs", Some(value), _) => Ok(Value::Int(value.wrapping_abs())),
        ("abs", None, Some(value)) => Ok(Value::Float(value.abs())),
        ("round", Some(value), _) | ("int", Some(value), _) => Ok(Value::Int(value)),
        ("round", None, Some(value)) => Ok(Value::Int(value.round_ties_even() as i64)),
        ("int", None, Some(value)) => Ok(Value::Int(value.trunc() as i64)),
        ("float", _, Some(value)) => Ok(Value::Float(value)),
        _ => Err(error(format!("{name}() needs a number"))),
    }
}
