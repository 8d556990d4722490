//! The functions of a text: which of them execute may call, and which are bodies of `call`.

use std::collections::{HashMap, HashSet};

use full_moon::ast::{Expression, FunctionBody};

/// A function of the text.
struct Function {
    /// The function around it.
    within: Option<usize>,
    /// Whether execute may call it.
    may_be_late: bool,
    /// The functions that call it; none for the file itself.
    callers: Vec<Option<usize>>,
    /// Whether it is given to `call`.
    is_body: bool,
}

/// The functions that were seen so far, by their numbers; none stands for the file itself.
#[derive(Default)]
pub(crate) struct Functions {
    all: Vec<Function>,
    /// Those around the node that is visited, innermost last.
    around: Vec<usize>,
    /// The functions by the byte of their first parenthesis.
    by_byte: HashMap<usize, usize>,
    /// The same bytes of those that run where they stand, or are a local variable from the start.
    tame: HashSet<usize>,
    /// The same bytes of those that are given to `call`.
    bodies: HashSet<usize>,
}

/// Where the parameters of a function begin.
fn first_byte(body: &FunctionBody) -> usize {
    body.parameters_parentheses().tokens().0.token().start_position().bytes()
}

impl Functions {
    /// The function around the node that is visited.
    pub fn innermost(&self) -> Option<usize> {
        self.around.last().copied()
    }

    /// Goes into a function, and gives its number. One that was not called tame may be called by execute.
    pub fn enter(&mut self, body: &FunctionBody) -> usize {
        let byte = first_byte(body);
        let place = self.all.len();
        let (may_be_late, is_body) = (!self.tame.contains(&byte), self.bodies.contains(&byte));
        self.all.push(Function { within: self.innermost(), may_be_late, callers: Vec::new(), is_body });
        self.by_byte.insert(byte, place);
        self.around.push(place);
        place
    }

    /// Comes out of the innermost function.
    pub fn leave(&mut self) {
        self.around.pop();
    }

    /// The number of a function that was seen.
    pub fn of(&self, body: &FunctionBody) -> Option<usize> {
        self.by_byte.get(&first_byte(body)).copied()
    }

    /// Notes that a function, which is visited next, runs where it stands or has a name from the start.
    pub fn will_be_tame(&mut self, body: &FunctionBody) {
        self.tame.insert(first_byte(body));
    }

    /// The same of an expression that may be a function.
    pub fn tame(&mut self, expression: &Expression) {
        if let Expression::Function(function) = expression {
            self.will_be_tame(function.body());
        }
    }

    /// Notes that a function, which is visited next, is given to `call`.
    pub fn will_be_body(&mut self, body: &FunctionBody) {
        self.bodies.insert(first_byte(body));
    }

    /// Notes that a function is given to `call`.
    pub fn is_body(&mut self, place: usize) {
        self.all[place].is_body = true;
    }

    /// Notes that a function is called by another one.
    pub fn called(&mut self, place: usize, caller: Option<usize>) {
        self.all[place].callers.push(caller);
    }

    /// Notes that a function is given to something that may call it at any time.
    pub fn given_away(&mut self, place: usize) {
        self.all[place].may_be_late = true;
    }

    /// Whether execute may run what stands in this function.
    pub fn may_be_late(&self, place: Option<usize>) -> bool {
        self.any_around(place, |function| function.may_be_late)
    }

    /// Whether what stands in this function stands in the body of a `call`.
    pub fn is_in_call(&self, place: Option<usize>) -> bool {
        self.any_around(place, |function| function.is_body)
    }

    fn any_around(&self, mut place: Option<usize>, holds: fn(&Function) -> bool) -> bool {
        while let Some(function) = place.map(|place| &self.all[place]) {
            if holds(function) {
                return true;
            }
            place = function.within;
        }
        false
    }

    /// Once all are seen: those that are called by functions that execute may call may be called by it as well.
    pub fn spread(&mut self) {
        loop {
            let is_reached = |function: &Function| function.callers.iter().any(|caller| self.may_be_late(*caller));
            let more: Vec<usize> =
                (0..self.all.len()).filter(|place| !self.all[*place].may_be_late && is_reached(&self.all[*place])).collect();
            if more.is_empty() {
                return;
            }
            for place in more {
                self.all[place].may_be_late = true;
            }
        }
    }
}
