//! Tokens to statements.

use super::token::{Token, statements, tokens};
use super::{Node, Statement, Value};

/// Most nesting of an expression.
const DEPTH_MAX: usize = 64;
/// Functions that may be called.
const FUNCTIONS: [&str; 14] = [
    "abs", "min", "max", "round", "int", "float", "bool", "str", "len", "sum", "pow", "print", "repr", "hex",
];
/// Words that begin statements nobody needs in an assertion.
const REFUSED: [&str; 16] = [
    "def", "for", "if", "while", "with", "try", "class", "lambda", "return", "raise", "global", "del",
    "else", "elif", "except", "yield",
];

/// Reads the code of one block. Says what in it is not supported.
pub(crate) fn parse(code: &str) -> Result<Vec<Statement>, String> {
    statements(code).into_iter().map(|(line, text)| statement(line, &text)).collect()
}

fn statement(line: usize, text: &str) -> Result<Statement, String> {
    let mut tokens = tokens(text)?;
    let keyword = match tokens.first() {
        Some(Token::Name(name)) => name.clone(),
        _ => String::new(),
    };
    if REFUSED.contains(&keyword.as_str()) {
        return Err(format!("`{keyword}` in Python code"));
    }
    match keyword.as_str() {
        "pass" | "import" | "from" => return Ok(Statement::Nothing),
        "assert" => {
            tokens.remove(0);
            let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
            let test = parser.expression()?;
            let message = if parser.take(",") { Some(parser.tuple()?) } else { None };
            parser.end()?;
            return Ok(Statement::Assert { line, test, message });
        }
        // Python 2 printed without parentheses.
        "print" if !matches!(tokens.get(1), Some(Token::Operator("("))) => return Ok(Statement::Nothing),
        _ => {}
    }
    if let [Token::Name(name), Token::Operator("="), rest @ ..] = tokens.as_slice() {
        let mut parser = Parser { tokens: rest, at: 0, depth: 0 };
        let value = parser.tuple()?;
        parser.end()?;
        return Ok(Statement::Assign { name: name.clone(), value });
    }
    const AUGMENTED: [(&str, &str); 4] = [("+=", "+"), ("-=", "-"), ("*=", "*"), ("//=", "//")];
    if let [Token::Name(name), Token::Operator(operator), rest @ ..] = tokens.as_slice()
        && let Some((_, binary)) = AUGMENTED.iter().find(|(augmented, _)| augmented == operator)
    {
        let mut parser = Parser { tokens: rest, at: 0, depth: 0 };
        let operand = parser.tuple()?;
        parser.end()?;
        let value = Node::Binary(binary, Box::new(Node::Name(name.clone())), Box::new(operand));
        return Ok(Statement::Assign { name: name.clone(), value });
    }
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let value = parser.tuple()?;
    parser.end()?;
    Ok(Statement::Evaluate(value))
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek_operator(&self) -> Option<&'static str> {
        match self.tokens.get(self.at) {
            Some(Token::Operator(operator)) => Some(operator),
            _ => None,
        }
    }

    fn peek_name(&self) -> Option<&str> {
        match self.tokens.get(self.at) {
            Some(Token::Name(name)) => Some(name),
            _ => None,
        }
    }

    fn take(&mut self, operator: &str) -> bool {
        let found = self.peek_operator() == Some(operator);
        self.at += usize::from(found);
        found
    }

    fn take_name(&mut self, name: &str) -> bool {
        let found = self.peek_name() == Some(name);
        self.at += usize::from(found);
        found
    }

    fn found(&self) -> String {
        match self.tokens.get(self.at) {
            None => "end of the Python statement".to_owned(),
            Some(Token::Name(name)) => format!("`{name}` in Python code"),
            Some(Token::Operator(operator)) => format!("`{operator}` in Python code"),
            Some(other) => format!("{other:?} in Python code"),
        }
    }

    fn end(&self) -> Result<(), String> {
        if self.at == self.tokens.len() { Ok(()) } else { Err(self.found()) }
    }

    /// One expression, or several with commas.
    fn tuple(&mut self) -> Result<Node, String> {
        let first = self.expression()?;
        if self.peek_operator() != Some(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take(",") {
            if self.at == self.tokens.len() || self.peek_operator() == Some(")") {
                break;
            }
            items.push(self.expression()?);
        }
        Ok(Node::Tuple(items))
    }

    fn expression(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("deep nesting in Python code".to_owned());
        }
        let mut node = self.or()?;
        if self.take_name("if") {
            let test = Box::new(self.or()?);
            if !self.take_name("else") {
                return Err(self.found());
            }
            node = Node::Conditional { test, then: Box::new(node), otherwise: Box::new(self.expression()?) };
        }
        self.depth -= 1;
        Ok(node)
    }

    fn or(&mut self) -> Result<Node, String> {
        let mut left = self.and()?;
        while self.take_name("or") {
            left = Node::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut left = self.not()?;
        while self.take_name("and") {
            left = Node::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Node, String> {
        if self.take_name("not") {
            return Ok(Node::Not(Box::new(self.not()?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, String> {
        let first = self.binary(0)?;
        let mut rest = Vec::new();
        loop {
            let operator = match (self.peek_operator(), self.peek_name()) {
                (Some(operator @ ("<" | ">" | "<=" | ">=" | "==" | "!=")), _) => operator,
                (_, Some("in")) => "in",
                (_, Some("is")) => "==",
                _ => break,
            };
            self.at += 1;
            let operator = if operator == "==" && self.take_name("not") { "!=" } else { operator };
            rest.push((operator, self.binary(0)?));
        }
        Ok(if rest.is_empty() { first } else { Node::Compare(Box::new(first), rest) })
    }

    /// Binary operators by rising precedence.
    fn binary(&mut self, level: usize) -> Result<Node, String> {
        const LEVELS: [&[&str]; 6] =
            [&["|"], &["^"], &["&"], &["<<", ">>"], &["+", "-"], &["*", "/", "//", "%"]];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = self.peek_operator().filter(|operator| operators.contains(operator)) {
            self.at += 1;
            left = Node::Binary(operator, Box::new(left), Box::new(self.binary(level + 1)?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, String> {
        for (operator, sign) in [("-", '-'), ("+", '+'), ("~", '~')] {
            if self.take(operator) {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err("deep nesting in Python code".to_owned());
                }
                let operand = self.unary()?;
                self.depth -= 1;
                return Ok(Node::Unary(sign, Box::new(operand)));
            }
        }
        let base = self.primary()?;
        if self.take("**") {
            return Ok(Node::Binary("**", Box::new(base), Box::new(self.unary()?)));
        }
        Ok(base)
    }

    fn primary(&mut self) -> Result<Node, String> {
        let Some(token) = self.tokens.get(self.at).cloned() else { return Err(self.found()) };
        match token {
            Token::Int(value) => self.literal(Value::Int(value)),
            Token::Float(value) => self.literal(Value::Float(value)),
            Token::Text(value) => self.literal(Value::Text(value)),
            Token::Name(name) => self.name(name),
            Token::Operator("(" | "[") => {
                self.at += 1;
                if self.take(")") || self.take("]") {
                    return Ok(Node::Tuple(Vec::new()));
                }
                let inner = self.tuple()?;
                if self.take(")") || self.take("]") { Ok(inner) } else { Err(self.found()) }
            }
            Token::Operator(_) => Err(self.found()),
        }
    }

    fn literal(&mut self, value: Value) -> Result<Node, String> {
        self.at += 1;
        Ok(Node::Literal(value))
    }

    fn name(&mut self, name: String) -> Result<Node, String> {
        match name.as_str() {
            "True" => return self.literal(Value::Bool(true)),
            "False" => return self.literal(Value::Bool(false)),
            "None" => return self.literal(Value::None),
            _ if REFUSED.contains(&name.as_str()) => return Err(self.found()),
            _ => {}
        }
        self.at += 1;
        if self.take("(") {
            if !FUNCTIONS.contains(&name.as_str()) {
                return Err(format!("{name}() in Python code"));
            }
            let mut arguments = Vec::new();
            while !self.take(")") {
                arguments.push(self.expression()?);
                if !self.take(",") && self.peek_operator() != Some(")") {
                    return Err(self.found());
                }
            }
            return Ok(Node::Call(name, arguments));
        }
        if self.peek_operator() == Some(".") {
            return Err(format!("`{name}.` in Python code"));
        }
        Ok(Node::Name(name))
    }
}
