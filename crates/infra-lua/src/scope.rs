//! What templates see: `host` and `inventory`, captured when the operation is called.

use infra_core::arguments::{self, LOCAL_PATH, TEMPLATE_SCOPE};
use infra_core::diagnostic::Diagnostic;
use infra_core::host::Host;
use infra_core::template::{self, TemplateError};
use infra_core::{Map, Value};
use serde_json::json;

use crate::evaluation::Evaluation;
use crate::world;

/// Fills in the arguments that take the scope of templates.
pub(crate) fn fill_in(evaluation: &Evaluation, schema: &Value, arguments: &mut Map) -> Result<(), Diagnostic> {
    let names: Vec<String> =
        arguments::names(schema).into_iter().filter(|name| arguments::is_marked(schema, name, TEMPLATE_SCOPE)).map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(());
    }
    let whole = texts(evaluation, schema, arguments).iter().any(|(_, text)| mentions_inventory(text));
    let scope = scope(evaluation, whole);
    for name in names {
        arguments.insert(name, scope.clone());
    }
    Ok(())
}

/// Whether a template may use `inventory`, which is large: it says so, or it takes in other templates.
pub(crate) fn mentions_inventory(text: &str) -> bool {
    ["inventory", "include", "import", "extends"].iter().any(|word| text.contains(word))
}

/// The scope as a map with `host`, and `inventory` where it is wanted.
pub(crate) fn scope(evaluation: &Evaluation, with_inventory: bool) -> Value {
    let mut scope = Map::new();
    if let Some(host) = &evaluation.host {
        scope.insert("host".to_owned(), json!({ "name": host.name, "groups": host.groups, "data": evaluation.data() }));
    }
    if with_inventory {
        let inventory = &evaluation.house.inventory;
        let hosts: Vec<Value> = inventory.hosts.iter().map(|host| of_host(host)).collect();
        let groups: Map = inventory
            .groups
            .iter()
            .map(|group| (group.name.clone(), group.hosts.iter().map(|id| hosts[id.index()].clone()).collect::<Vec<_>>().into()))
            .collect();
        scope.insert("inventory".to_owned(), json!({ "hosts": hosts, "groups": groups }));
    }
    Value::Object(scope)
}

fn of_host(host: &Host) -> Value {
    json!({ "name": host.name, "groups": host.groups, "data": host.data })
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
