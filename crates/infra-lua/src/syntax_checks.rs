//! Checks of what a deploy says before it runs: conditions that are used as truth values, which are always true for Lua.
//!
//! In a function that execute calls they are plain booleans. Which functions these are a text does not always tell, so that only what surely runs
//! while the plan is made is checked: the file itself, the bodies of blocks, and local functions that are called from there alone. What is left
//! is noticed when the script ran: a condition that was read and never given to anything.

use std::collections::HashSet;

use full_moon::ast::{
    Assignment, Ast, BinOp, Block, Call, ElseIf, Expression, Field, FunctionArgs, FunctionBody, FunctionCall, FunctionName, GenericFor, If,
    Index, LocalAssignment, LocalFunction, NumericFor, Parameter, Prefix, Repeat, Suffix, TableConstructor, UnOp, Var, While,
};
use full_moon::tokenizer::TokenReference;
use full_moon::visitors::Visitor;
use full_moon::{LuaVersion, parse_fallible};
use infra_core::diagnostic::Diagnostic;
use infra_core::registry::Registry;

use crate::syntax_functions::Functions;
use crate::{performing, unknown_names};

/// What a person reads off a handle that is known only later.
const CONDITIONS: [&str; 5] = ["did_change", "did_not_change", "did_succeed", "did_error", "will_change"];

/// What makes a condition of handles.
const FUNCTIONS: [&str; 3] = ["any_changed", "all_changed", "any_host"];

/// Functions that call the function that they are given at once.
const AT_ONCE: [&str; 7] = ["with", "deploy", "parallel", "rolling", "once", "pcall", "xpcall"];

/// What does not stand inside `call`, because its operations run at once on one host.
const NOT_IN_CALL: [&str; 3] = ["parallel", "rolling", "call"];

/// The stack of the thread that walks through a syntax tree, in bytes: a long sum is a deep tree.
const STACK: usize = 256 * 1024 * 1024;

/// All that is wrong with the text of a file that Lua itself takes, in the order of its lines.
pub(crate) fn check(name: &str, text: &str, registry: &Registry) -> Vec<Diagnostic> {
    let words = CONDITIONS.iter().chain(&FUNCTIONS).chain(&[" and ", "call(", "call ("]);
    if !words.copied().any(|word| text.contains(word)) {
        return Vec::new();
    }
    let found = std::thread::scope(|scope| {
        let walk = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || walk(text, registry));
        // Where no thread can be had, or the tree cannot be walked, the checks while the script runs remain.
        walk.ok().and_then(|thread| thread.join().ok()).unwrap_or_default()
    });
    let mut found: Vec<Finding> = found;
    found.sort_by_key(|finding| finding.line);
    found
        .into_iter()
        .map(|Finding { line, message, hint, .. }| {
            let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            let hint = (!hint.is_empty()).then_some(hint);
            Diagnostic::misuse(message).at(name, u32::try_from(line).unwrap_or(0)).source(source).maybe_hint(hint)
        })
        .collect()
}

fn walk(text: &str, registry: &Registry) -> Vec<Finding> {
    let parsed = parse_fallible(text, LuaVersion::lua54());
    if !parsed.errors().is_empty() {
        return Vec::new();
    }
    let mut checker = Checker { registry: Some(registry), ..Checker::default() };
    checker.visit_ast(parsed.ast());
    checker.finish()
}

struct Finding {
    /// The function in which the condition is read.
    within: Option<usize>,
    line: usize,
    message: String,
    hint: String,
}

/// A local variable.
struct Local {
    name: String,
    /// The condition that it was given when it was declared, and the line.
    condition: Option<(String, usize)>,
    assigned_again: bool,
    used: bool,
    /// The function in which it is declared.
    within: Option<usize>,
    /// The function that it is.
    function: Option<usize>,
    /// The lines on which it is used as a truth value or compared, and the functions around them.
    tests: Vec<(usize, Test, Option<usize>)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Test {
    Truth,
    Comparison,
}

#[derive(Default)]
struct Checker<'r> {
    /// The operations and facts there are.
    registry: Option<&'r Registry>,
    functions: Functions,
    /// Where the names of functions stand that are called there, by byte.
    called: HashSet<usize>,
    /// What is wrong if it stands inside `call`, where nothing is run while the plan is made that would find it.
    strays: Vec<Finding>,
    locals: Vec<Local>,
    /// The names that are visible: by block, those of the innermost last.
    scopes: Vec<Vec<(String, usize)>>,
    /// Where the names on the left of assignments stand, by byte.
    assigned: HashSet<usize>,
    findings: Vec<Finding>,
}

fn line_of(node: &impl full_moon::node::Node) -> usize {
    node.start_position().map_or(0, |position| position.line())
}

fn byte_of(token: &TokenReference) -> usize {
    token.token().start_position().bytes()
}

fn text_of(token: &TokenReference) -> String {
    token.token().to_string()
}

/// The tables among the arguments of a call.
fn arguments_of(suffix: &Suffix) -> Option<Vec<&TableConstructor>> {
    let Suffix::Call(Call::AnonymousCall(arguments)) = suffix else { return None };
    Some(match &**arguments {
        FunctionArgs::TableConstructor(table) => vec![table],
        FunctionArgs::Parentheses { arguments, .. } => {
            let tables = arguments.iter().filter_map(|one| match one {
                Expression::TableConstructor(table) => Some(&**table),
                _ => None,
            });
            tables.collect()
        }
        _ => Vec::new(),
    })
}

/// The expression without the parentheses around it.
fn bare(mut expression: &Expression) -> &Expression {
    while let Expression::Parentheses { expression: inner, .. } = expression {
        expression = inner;
    }
    expression
}

impl Checker<'_> {
    fn declare(&mut self, name: String, condition: Option<(String, usize)>) {
        let place = self.locals.len();
        let within = self.functions.innermost();
        let local = Local { name: name.clone(), condition, assigned_again: false, used: false, within, function: None, tests: Vec::new() };
        self.locals.push(local);
        if let Some(scope) = self.scopes.last_mut() {
            scope.push((name, place));
        }
    }

    fn lookup(&mut self, name: &str) -> Option<&mut Local> {
        let place =
            self.scopes.iter().rev().flat_map(|scope| scope.iter().rev()).find(|(known, _)| known == name).map(|(_, place)| *place)?;
        self.locals.get_mut(place)
    }

    /// `handle.did_change` where the expression reads a condition, or the whole of it where it is made of conditions.
    fn condition_in(&self, expression: &Expression) -> Option<String> {
        let expression = bare(expression);
        let var = match expression {
            Expression::Var(Var::Expression(var)) => var,
            Expression::BinaryOperator { lhs, binop: BinOp::Pipe(_) | BinOp::Ampersand(_), rhs } => {
                return self.condition_in(lhs).or_else(|| self.condition_in(rhs)).map(|_| expression.to_string().trim().to_owned());
            }
            Expression::UnaryOperator { unop: UnOp::Tilde(_), expression: inner } => {
                return self.condition_in(inner).map(|_| expression.to_string().trim().to_owned());
            }
            Expression::FunctionCall(call) => {
                let Prefix::Name(name) = call.prefix() else { return None };
                let name = text_of(name);
                let is_one = FUNCTIONS.contains(&name.as_str()) && !self.is_local(&name) && call.suffixes().count() == 1;
                return is_one.then(|| expression.to_string().trim().to_owned());
            }
            _ => return None,
        };
        let name = match var.suffixes().last()? {
            Suffix::Index(Index::Dot { name, .. }) => text_of(name),
            Suffix::Index(Index::Brackets { expression, .. }) => match &**expression {
                Expression::String(text) => text_of(text).trim_matches(['"', '\'']).to_owned(),
                _ => return None,
            },
            _ => return None,
        };
        CONDITIONS.contains(&name.as_str()).then(|| var.to_string().trim().to_owned())
    }

    fn is_local(&self, name: &str) -> bool {
        self.scopes.iter().flatten().any(|(known, _)| known == name)
    }

    fn used(&mut self, token: &TokenReference) {
        let is_assigned = self.assigned.contains(&byte_of(token));
        let is_called = self.called.contains(&byte_of(token));
        let caller = self.functions.innermost();
        let Some(local) = self.lookup(&text_of(token)) else { return };
        if is_assigned {
            local.assigned_again = true;
        } else {
            local.used = true;
        }
        if let Some(function) = local.function {
            if is_called {
                self.functions.called(function, caller);
            } else {
                // It is given away, or another one takes its name.
                self.functions.given_away(function);
            }
        }
    }

    /// Notes that the local variable declared last is the function with this body.
    fn names_function(&mut self, body: &FunctionBody) {
        if let (Some(local), Some(function)) = (self.locals.last_mut(), self.functions.of(body)) {
            local.function = Some(function);
        }
    }

    /// Notes what must not stand inside `call`: a block, and an operation that would be spread over hosts.
    fn stray(&mut self, name: Option<&str>, node: &FunctionCall) {
        let within = self.functions.innermost();
        let Some(place) = within else { return };
        let line = line_of(node);
        if let Some(name) = name.filter(|name| NOT_IN_CALL.contains(name)) {
            let (message, hint) = performing::stray_block(name);
            self.strays.push(Finding { within: Some(place), line, message, hint });
            return;
        }
        // An operation is `module.operation`; what a function of one's own does with a table is not known.
        let is_operation = match (node.prefix(), node.suffixes().next()) {
            (Prefix::Name(module), Some(Suffix::Index(_))) => !self.is_local(&text_of(module)),
            _ => name.is_some_and(|name| ["with", "deploy"].contains(&name)),
        };
        for table in node.suffixes().filter(|_| is_operation).filter_map(arguments_of).flatten() {
            for field in table.fields() {
                let Field::NameKey { key, value, .. } = field else { continue };
                let is_off = matches!(&**value, Expression::Symbol(symbol) if ["nil", "false"].contains(&text_of(symbol).as_str()));
                let Some((message, hint)) = performing::stray_argument(&text_of(key)).filter(|_| !is_off) else { continue };
                self.strays.push(Finding { within, line: key.token().start_position().line(), message, hint });
            }
        }
    }

    /// Notes names that do not exist: of an operation, of its arguments, and of a fact.
    fn unknown(&mut self, node: &FunctionCall) {
        let within = self.functions.innermost();
        let (Some(registry), Some(_), Prefix::Name(prefix)) = (self.registry, within, node.prefix()) else { return };
        let prefix = text_of(prefix);
        if self.is_local(&prefix) {
            return;
        }
        let mut wrong: Vec<(usize, Diagnostic)> = Vec::new();
        let suffixes: Vec<&Suffix> = node.suffixes().collect();
        match &suffixes[..] {
            [Suffix::Index(Index::Dot { name, .. }), called @ Suffix::Call(Call::AnonymousCall(_)), ..]
                if unknown_names::is_module(registry, &prefix) =>
            {
                let (line, key) = (line_of(name), text_of(name));
                let kind = format!("{prefix}.{key}");
                if registry.operation(&kind).is_none() {
                    wrong.push((line, unknown_names::operation(registry, &prefix, &key)));
                }
                for field in arguments_of(called).into_iter().flatten().flat_map(TableConstructor::fields) {
                    let Field::NameKey { key, .. } = field else { continue };
                    wrong.extend(unknown_names::argument(registry, &kind, &text_of(key)).map(|found| (line_of(key), found)));
                }
            }
            [Suffix::Call(Call::MethodCall(method)), ..] if prefix == "host" && text_of(method.name()) == "fact" => {
                let name = match method.args() {
                    FunctionArgs::String(name) => Some(name),
                    FunctionArgs::Parentheses { arguments, .. } => match arguments.iter().next() {
                        Some(Expression::String(name)) => Some(name),
                        _ => None,
                    },
                    _ => None,
                };
                if let Some(token) = name {
                    let name = text_of(token).trim_matches(['"', '\'']).to_owned();
                    if registry.fact(&name).is_none() {
                        wrong.push((line_of(token), unknown_names::fact(registry, &name)));
                    }
                }
            }
            _ => {}
        }
        for (line, Diagnostic { message, hint, .. }) in wrong {
            self.strays.push(Finding { within, line, message, hint: hint.unwrap_or_default() });
        }
    }

    /// Looks at an expression that is taken as true or false.
    fn test(&mut self, expression: &Expression, test: Test) {
        if let Some(condition) = self.condition_in(expression) {
            self.report(line_of(expression), &condition, test, self.functions.innermost());
            return;
        }
        match bare(expression) {
            Expression::Var(Var::Name(name)) => {
                let line = line_of(expression);
                let within = self.functions.innermost();
                if let Some(local) = self.lookup(&text_of(name)) {
                    local.tests.push((line, test, within));
                }
            }
            // Numbers have these operators too, but a local that holds a condition is none.
            Expression::BinaryOperator { lhs, binop: BinOp::Pipe(_) | BinOp::Ampersand(_), rhs } => {
                self.test(lhs, test);
                self.test(rhs, test);
            }
            Expression::UnaryOperator { unop: UnOp::Tilde(_), expression } => self.test(expression, test),
            Expression::BinaryOperator { binop: BinOp::And(_) | BinOp::Or(_), rhs, .. } if test == Test::Truth => self.test(rhs, test),
            _ => {}
        }
    }

    fn report(&mut self, line: usize, condition: &str, test: Test, within: Option<usize>) {
        if condition.ends_with("will_change") {
            if test == Test::Truth {
                let message = format!("`{condition}` is used as a truth value, but it may be \"unknown\", which counts as true");
                let hint = format!("compare it: {condition} == true");
                self.findings.push(Finding { within, line, message, hint });
            }
            return;
        }
        let what = match test {
            Test::Truth => "is used as a truth value, but it is known only when the operations have run",
            Test::Comparison => "is compared, but it is known only when the operations have run",
        };
        let hint = format!("give it to the operations that depend on it: _if = {condition}");
        self.findings.push(Finding { within, line, message: format!("the condition `{condition}` {what}"), hint });
    }

    fn finish(mut self) -> Vec<Finding> {
        self.functions.spread();
        for local in std::mem::take(&mut self.locals) {
            let Some((condition, line)) = local.condition else { continue };
            if local.assigned_again {
                continue;
            }
            let foresees = condition.ends_with("will_change");
            for (line, test, within) in &local.tests {
                let shown = if foresees { &condition } else { &local.name };
                self.report(*line, shown, *test, local.within);
                if self.functions.may_be_late(*within)
                    && !foresees
                    && let Some(finding) = self.findings.last_mut()
                {
                    finding.hint = format!("read it inside the function, where it is true or false: {condition}");
                }
            }
            if !local.used && !foresees {
                let message = format!("the condition `{condition}` is read into `{}` and never used", local.name);
                let hint = format!("give it to an operation: _if = {}", local.name);
                self.findings.push(Finding { within: local.within, line, message, hint });
            }
        }
        let strays: Vec<Finding> =
            std::mem::take(&mut self.strays).into_iter().filter(|stray| self.functions.is_in_call(stray.within)).collect();
        let findings = std::mem::take(&mut self.findings);
        let found = findings.into_iter().filter(|finding| !self.functions.may_be_late(finding.within));
        found.chain(strays).collect()
    }
}

impl Visitor for Checker<'_> {
    fn visit_ast(&mut self, ast: &Ast) {
        use full_moon::visitors::Visit as _;
        ast.nodes().visit(self);
    }

    fn visit_block(&mut self, _: &Block) {
        self.scopes.push(Vec::new());
    }

    fn visit_block_end(&mut self, _: &Block) {
        self.scopes.pop();
    }

    fn visit_function_call(&mut self, node: &FunctionCall) {
        self.unknown(node);
        let (Prefix::Name(name), Some(Suffix::Call(Call::AnonymousCall(arguments)))) = (node.prefix(), node.suffixes().next()) else {
            self.stray(None, node);
            return;
        };
        self.called.insert(byte_of(name));
        let name = text_of(name);
        let own = (!self.is_local(&name)).then_some(name.as_str());
        self.stray(own, node);
        if let (Some("call"), FunctionArgs::Parentheses { arguments, .. }) = (own, &**arguments) {
            for argument in arguments {
                match argument {
                    Expression::Function(function) => self.functions.will_be_body(function.body()),
                    Expression::Var(Var::Name(name)) => {
                        if let Some(function) = self.lookup(&text_of(name)).and_then(|local| local.function) {
                            self.functions.is_body(function);
                        }
                    }
                    _ => {}
                }
            }
        }
        if !AT_ONCE.contains(&name.as_str()) || self.is_local(&name) {
            return;
        }
        if let FunctionArgs::Parentheses { arguments, .. } = &**arguments {
            for argument in arguments {
                self.functions.tame(argument);
                if let Expression::Var(Var::Name(name)) = argument {
                    self.called.insert(byte_of(name));
                }
            }
        }
    }

    fn visit_function_body(&mut self, body: &FunctionBody) {
        let place = self.functions.enter(body);
        if let Some(local) = self.locals.last_mut().filter(|local| local.function == Some(usize::MAX)) {
            local.function = Some(place);
        }
        self.scopes.push(Vec::new());
        for parameter in body.parameters() {
            if let Parameter::Name(name) = parameter {
                self.declare(text_of(name), None);
            }
        }
    }

    fn visit_function_body_end(&mut self, _: &FunctionBody) {
        self.functions.leave();
        self.scopes.pop();
    }

    fn visit_generic_for(&mut self, node: &GenericFor) {
        self.scopes.push(Vec::new());
        for name in node.names() {
            self.declare(text_of(name), None);
        }
    }

    fn visit_generic_for_end(&mut self, _: &GenericFor) {
        self.scopes.pop();
    }

    fn visit_numeric_for(&mut self, node: &NumericFor) {
        self.scopes.push(Vec::new());
        self.declare(text_of(node.index_variable()), None);
    }

    fn visit_numeric_for_end(&mut self, _: &NumericFor) {
        self.scopes.pop();
    }

    fn visit_local_function(&mut self, node: &LocalFunction) {
        self.declare(text_of(node.name()), None);
        self.functions.will_be_tame(node.body());
        // It is visited next, and may call itself.
        if let Some(local) = self.locals.last_mut() {
            local.function = Some(usize::MAX);
        }
    }

    fn visit_local_assignment(&mut self, node: &LocalAssignment) {
        for value in node.expressions() {
            self.functions.tame(value);
        }
    }

    fn visit_local_assignment_end(&mut self, node: &LocalAssignment) {
        let values: Vec<&Expression> = node.expressions().iter().collect();
        for (at, name) in node.names().iter().enumerate() {
            let condition = values.get(at).and_then(|value| self.condition_in(value)).map(|condition| (condition, line_of(name)));
            self.declare(text_of(name), condition);
            if let Some(Expression::Function(function)) = values.get(at) {
                self.names_function(function.body());
            }
        }
    }

    fn visit_assignment(&mut self, node: &Assignment) {
        for var in node.variables() {
            if let Var::Name(name) = var {
                self.assigned.insert(byte_of(name));
            }
        }
    }

    fn visit_var(&mut self, node: &Var) {
        if let Var::Name(name) = node {
            self.used(name);
        }
    }

    fn visit_prefix(&mut self, node: &Prefix) {
        if let Prefix::Name(name) = node {
            self.used(name);
        }
    }

    fn visit_function_name(&mut self, node: &FunctionName) {
        if let Some(name) = node.names().iter().next() {
            self.used(name);
        }
    }

    fn visit_if(&mut self, node: &If) {
        self.test(node.condition(), Test::Truth);
    }

    fn visit_else_if(&mut self, node: &ElseIf) {
        self.test(node.condition(), Test::Truth);
    }

    fn visit_while(&mut self, node: &While) {
        self.test(node.condition(), Test::Truth);
    }

    fn visit_repeat(&mut self, node: &Repeat) {
        self.test(node.until(), Test::Truth);
    }

    fn visit_expression(&mut self, node: &Expression) {
        match node {
            Expression::UnaryOperator { unop: UnOp::Not(_), expression } => self.test(expression, Test::Truth),
            Expression::BinaryOperator { lhs, binop, rhs } => match binop {
                BinOp::And(_) => self.test(lhs, Test::Truth),
                BinOp::Or(_) => {
                    self.test(lhs, Test::Truth);
                    if let Expression::BinaryOperator { binop: BinOp::And(_), rhs: middle, .. } = bare(lhs)
                        && let Expression::Symbol(symbol) = bare(middle)
                        && matches!(text_of(symbol).as_str(), "false" | "nil")
                    {
                        let symbol = text_of(symbol);
                        let message = format!("`x and {symbol} or y` is always y, because {symbol} is not true");
                        let hint = format!("write if x then v = {symbol} else v = y end, or turn it around: not x and y");
                        self.findings.push(Finding { within: None, line: line_of(node), message, hint });
                    }
                }
                BinOp::TwoEqual(_) | BinOp::TildeEqual(_) => {
                    // A comparison with nil asks whether there is a condition at all.
                    let is_nil = |side: &Expression| matches!(bare(side), Expression::Symbol(symbol) if text_of(symbol) == "nil");
                    if !is_nil(lhs) && !is_nil(rhs) {
                        self.test(lhs, Test::Comparison);
                        self.test(rhs, Test::Comparison);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<u32> {
        check("deploy.lua", text, &Registry::default()).iter().map(|found| found.location.as_ref().expect("a line").line).collect()
    }

    #[test]
    fn conditions_as_truth_values_are_found() {
        for text in [
            "if conf.did_change then end",
            "if a then elseif (conf.did_change) then end",
            "while conf.did_not_change do end",
            "repeat until conf.did_error",
            "local x = not conf.did_succeed",
            "local x = conf.did_change and 1",
            "local x = conf.did_change or 1",
            "if a and conf.did_change then end",
            "f(conf['did_change'] == true)",
            "if f().did_change then end",
            "local changed = conf.did_change if changed then end",
            "local changed = conf.did_change f(function() return not changed end)",
            "local a, changed = 1, conf.did_change f(changed and 1, a)",
            "local v = x and false or y",
            "if conf.will_change then end",
            "if a.did_change | b.did_change then end",
            "if ok and (a | b.did_error) then end",
            "while ~conf.did_change do end",
            "local x = not (a.did_change & b)",
            "local both = a.did_change & b.did_change if both then end",
            "local x = a.did_change if x | y then end",
            "local x = a.did_change if not ~x then end",
            "if any_changed(a, b) then end",
            "if not any_host(a) then end",
            "local x = all_changed(a) if x then end",
            "local x = a.did_change | b",
            "with({}, function() if conf.did_change then end end)",
            "rolling(function() deploy('x', function() if conf.did_change then end end) end)",
            "local function f() if conf.did_change then end end f()",
            "local f = function() local x = conf.did_change if x then end end with({}, f)",
            "local function f() if conf.did_change then end end local function g() f() end g()",
            "local changed = conf.did_change call(function() if changed then end end)",
            "local changed = conf.did_change op { _if = function() return not changed end }",
            "local plan = conf.will_change if plan then end",
            "if not conf.will_change then end",
            "call(function() rolling(function() end) end)",
            "call('x', {}, function() with({}, function() if x then parallel(f) end end) end)",
            "call(function() f(function() call(g) end) end)",
            "call(function() server.shell { commands = 'x', _serial = 2 } end)",
            "call(function() with({ _run_once = true }, function() end) end)",
            "call(function() server.shell(common, { _retry_until = f }) end)",
            "local function body() rolling(function() end) end call(body)",
        ] {
            assert_eq!(lines(text), [1], "{text}");
        }
    }

    #[test]
    fn conditions_in_their_places_are_not() {
        for text in [
            "f { _if = conf.did_change, restarted = a and conf.did_change }",
            "local changed = conf.did_change f { _if = changed }",
            "local changed = conf.did_change changed = true if changed then end",
            "local changed = conf.did_change f(changed) do local changed = 1 if changed then end end",
            "local changed = conf.did_change f(changed) f(function(changed) if changed then end end)",
            "local changed = conf.did_change f(changed) for changed = 1, 2 do if changed then end end",
            "local v = x and 1 or y",
            "if conf and conf.did_change ~= nil then end",
            "if f(conf.did_change) then end",
            "f { _if = a.did_change | ~b.did_change & true, restarted = any_host(a) }",
            "if flags | 4 == 4 then end",
            "local x = a.did_change | b.did_change f(x)",
            "if M.any_changed(a) then end",
            "local any_changed = mine if any_changed(a) then end",
            "call(function() if conf.did_change then end end)",
            "call('x', { _if = a.did_change }, function() local x = conf.did_change while x or not b.did_error do end end)",
            "op { _if = function() return not conf.did_change and conf.did_error == true end }",
            "op { _retry_until = function(result) if result.did_change then return true end return any_changed(a) and 1 or 2 end }",
            "local x = { commands = function() if conf.did_change then return 1 end end } op(x)",
            "local function new() return conf.did_change or other.did_change end op { _if = new }",
            "local function f() if conf.did_change then end end call(f)",
            "local f = function() if conf.did_change then end end call(function() f() end)",
            "local function f() if conf.did_change then end end local function g() f() end call(function() with({}, g) end)",
            "function M.f() if conf.did_change then end end",
            "local M = {} M.f = function() if conf.did_change then end end return M",
            "local function f(n) if conf.did_change then return f(n - 1) end end call(function() return f(3) end)",
            "call(function() local changed = conf.did_change end)",
            "if conf.will_change == true or conf.will_change ~= 'unknown' then end",
            "local plan = conf.will_change if plan == 'unknown' then end",
            "rolling(function() call({ _serial = 2 }, function() end) end)",
            "call(function() server.shell { commands = 'x', _serial = false, _parallel = nil } end)",
            "call(function() M.rolling(function() end) local parallel = f parallel() end)",
            "local function rolling(f) f() end call(function() rolling(function() end) end)",
            "call(function() local settings = { _serial = 2 } mine { _serial = 2 } end)",
            "local M = {} call(function() M.op { _serial = 2 } end)",
            "local function later() rolling(function() end) end later() call(function() end)",
        ] {
            assert_eq!(lines(text), Vec::<u32>::new(), "{text}");
        }
    }

    #[test]
    fn unused_conditions_are_found_on_their_line() {
        assert_eq!(lines("local a = 1\nlocal changed =\n  conf.did_change\nf(a)"), [2]);
    }

    #[test]
    fn a_long_sum_is_no_trouble() {
        let sum = vec!["1"; 20_000].join(" + ");
        assert_eq!(lines(&format!("local x = {sum}\nif conf.did_change then end")), [2]);
    }
}
