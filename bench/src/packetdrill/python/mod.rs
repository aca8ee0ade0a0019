//! As much Python as assertions over `TCP_INFO` use: expressions, `assert`, `print`, assignments. Everything else is
//! refused by name before the script runs.

mod evaluate;
mod parse;
mod token;

#[cfg(test)]
mod tests;

pub(crate) use evaluate::{Failure, Variables, run};
pub(crate) use parse::parse;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Value>),
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    /// `assert test, message`.
    Assert { line: usize, test: Node, message: Option<Node> },
    /// `name = value`.
    Assign { name: String, value: Node },
    /// `print(...)` and the like: evaluated, not shown.
    Evaluate(Node),
    /// `pass`, `import ...`.
    Nothing,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Literal(Value),
    Name(String),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Unary(char, Box<Node>),
    Binary(&'static str, Box<Node>, Box<Node>),
    /// `a < b <= c`: the first operand, then operators with theirs.
    Compare(Box<Node>, Vec<(&'static str, Node)>),
    /// `x if test else y`.
    Conditional {
        test: Box<Node>,
        then: Box<Node>,
        otherwise: Box<Node>,
    },
    Call(String, Vec<Node>),
    Tuple(Vec<Node>),
}
