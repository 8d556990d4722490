//! What templates see of a host, captured when the operation is called.

use std::sync::Arc;

use infra_core::arguments::{self, LOCAL_PATH, TEMPLATE_SCOPE};
use infra_core::diagnostic::Diagnostic;
use infra_core::host::Host;
use infra_core::template::{self, TemplateError};
use infra_core::{Map, Value};

use crate::evaluation::Evaluation;
use crate::world;

/// Fills in the arguments that take the scope of templates.
pub(crate) fn fill_in(evaluation: &Evaluation, schema: &Value, arguments: &mut Map) -> Result<(), Diagnostic> {
    let names: Vec<String> =
        arguments::names(schema).into_iter().filter(|name| arguments::is_marked(schema, name, TEMPLATE_SCOPE)).map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(());
    }
    let scope = Value::Object(scope(evaluation));
    for name in names {
        arguments.insert(name, scope.clone());
    }
    Ok(())
}

/// The scope as a map with `host`. `inventory`, which is large and the same for all, is no part of it: see [`template::InventoryScope`].
pub(crate) fn scope(evaluation: &Evaluation) -> Map {
    let of = |host: &Arc<Host>| ("host".to_owned(), template::host_scope(&host.name, &host.groups, &evaluation.data()));
    evaluation.host.iter().map(of).collect()
}

/// The texts of the templates among the arguments, with their names.
fn texts(evaluation: &Evaluation, schema: &Value, arguments: &Map) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for (name, value) in arguments {
        let Value::String(text) = value else { continue };
        if arguments::is_marked(schema, name, LOCAL_PATH) {
            // What cannot be read is told by the operation when it is planned.
            if let Ok(bytes) = evaluation.house.world.read_file(std::path::Path::new(text)) {
                texts.push((text.clone(), String::from_utf8_lossy(&bytes).into_owned()));
            }
        } else if name == "content" {
            texts.push(("content".to_owned(), text.clone()));
        }
    }
    texts
}

/// Checks the syntax of the templates among the arguments.
pub(crate) fn check_templates(evaluation: &Evaluation, schema: &Value, arguments: &Map) -> Result<(), Diagnostic> {
    for (name, text) in texts(evaluation, schema, arguments) {
        template::check(&name, &text).map_err(|error| wrong_template(evaluation, &error))?;
    }
    Ok(())
}

/// The diagnostic of a template: at the template's own line where it is a file.
pub(crate) fn wrong_template(evaluation: &Evaluation, error: &TemplateError) -> Diagnostic {
    let mut diagnostic = if error.is_syntax { Diagnostic::misuse("") } else { Diagnostic::runtime("") };
    diagnostic.message = format!("the template cannot be rendered: {}", error.message);
    if error.template.starts_with('/') {
        let file = world::display(&*evaluation.house.world, std::path::Path::new(&error.template));
        diagnostic = diagnostic.at(file, error.line.unwrap_or(0));
        diagnostic.source_line.clone_from(&error.source_line);
    }
    diagnostic
}
