//! The one registry that feeds parsing, help, editor types and the book.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::arguments::{self, ArgumentError};
use crate::diagnostic::did_you_mean;
use crate::example::{Example, FactExample};
use crate::fact::{self, Fact, Scope, SharedFact};
use crate::operation::{self, Idempotence, Misuse, Operation, SharedOperation};
use crate::{Map, Value};

/// Where a definition comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The standard library.
    BuiltIn,
    /// A Lua file.
    Lua {
        /// The file, as the user would write it.
        file: String,
    },
}

type BindOperation = Arc<dyn Fn(Map) -> Result<SharedOperation, ArgumentError> + Send + Sync>;
type BindFact = Arc<dyn Fn(Map) -> Result<SharedFact, ArgumentError> + Send + Sync>;

/// An operation as it is known by name.
#[derive(Clone)]
pub struct OperationDefinition {
    /// `module.operation`.
    pub name: String,
    /// What it does, as Markdown.
    pub doc: String,
    /// The JSON schema of its arguments.
    pub schema: Value,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether a second run is the same as one.
    pub idempotence: Idempotence,
    /// Examples, run by the tests.
    pub examples: Vec<Example>,
    bind: BindOperation,
}

/// A fact as it is known by name.
#[derive(Clone)]
pub struct FactDefinition {
    /// `module.fact`.
    pub name: String,
    /// What it answers, as Markdown.
    pub doc: String,
    /// The JSON schema of the question.
    pub schema: Value,
    /// Where it comes from.
    pub origin: Origin,
    /// For whom an answer holds.
    pub scope: Scope,
    /// Examples, run by the tests.
    pub examples: Vec<FactExample>,
    bind: BindFact,
}

impl OperationDefinition {
    /// The definition of a built-in operation.
    pub fn of<O: Operation>() -> Self {
        let schema = schemars::schema_for!(O).to_value();
        let bound_schema = schema.clone();
        let bind = move |args: Map| {
            let operation: O = read(&bound_schema, args)?;
            operation.check().map_err(|Misuse { message, hint }| ArgumentError { argument: None, message, hint })?;
            Ok(operation::erase(operation))
        };
        Self {
            name: O::NAME.to_owned(),
            doc: O::DOC.to_owned(),
            schema,
            origin: Origin::BuiltIn,
            idempotence: O::IDEMPOTENCE,
            examples: O::examples(),
            bind: Arc::new(bind),
        }
    }

    /// Checks the arguments and gives the wish.
    ///
    /// # Errors
    /// [`ArgumentError`] with the nearest right name.
    pub fn bind(&self, args: Map) -> Result<SharedOperation, ArgumentError> {
        (self.bind)(args)
    }
}

impl FactDefinition {
    /// The definition of a built-in fact.
    pub fn of<F: Fact>() -> Self {
        let schema = schemars::schema_for!(F).to_value();
        let bound_schema = schema.clone();
        Self {
            name: F::NAME.to_owned(),
            doc: F::DOC.to_owned(),
            schema,
            origin: Origin::BuiltIn,
            scope: F::SCOPE,
            examples: F::examples(),
            bind: Arc::new(move |args| read::<F>(&bound_schema, args).map(fact::erase)),
        }
    }

    /// Checks the arguments and gives the question.
    ///
    /// # Errors
    /// [`ArgumentError`] with the nearest right name.
    pub fn bind(&self, args: Map) -> Result<SharedFact, ArgumentError> {
        (self.bind)(args)
    }
}

fn read<T: DeserializeOwned>(schema: &Value, args: Map) -> Result<T, ArgumentError> {
    let checked = arguments::check(schema, args)?;
    serde_json::from_value(Value::Object(checked)).map_err(|error| ArgumentError { argument: None, message: error.to_string(), hint: None })
}

/// All operations and facts by name.
#[derive(Clone, Default)]
pub struct Registry {
    operations: BTreeMap<String, OperationDefinition>,
    facts: BTreeMap<String, FactDefinition>,
}

impl Registry {
    /// With one more operation; one of the same name is replaced.
    pub fn add_operation(&mut self, definition: OperationDefinition) {
        self.operations.insert(definition.name.clone(), definition);
    }

    /// With one more fact; one of the same name is replaced.
    pub fn add_fact(&mut self, definition: FactDefinition) {
        self.facts.insert(definition.name.clone(), definition);
    }

    /// The operation of this name.
    pub fn operation(&self, name: &str) -> Option<&OperationDefinition> {
        self.operations.get(name)
    }

    /// The fact of this name.
    pub fn fact(&self, name: &str) -> Option<&FactDefinition> {
        self.facts.get(name)
    }

    /// All operations, by name.
    pub fn operations(&self) -> impl Iterator<Item = &OperationDefinition> {
        self.operations.values()
    }

    /// All facts, by name.
    pub fn facts(&self) -> impl Iterator<Item = &FactDefinition> {
        self.facts.values()
    }

    /// `` did you mean `x`? `` for an unknown operation.
    pub fn nearest_operation(&self, name: &str) -> Option<String> {
        did_you_mean(name, self.operations.keys().map(String::as_str))
    }

    /// `` did you mean `x`? `` for an unknown fact.
    pub fn nearest_fact(&self, name: &str) -> Option<String> {
        did_you_mean(name, self.facts.keys().map(String::as_str))
    }
}
