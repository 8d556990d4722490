//! Jinja2 templates (minijinja), as `files.template` and `render` use them.
//!
//! An undefined variable is an error, a newline at the end is kept, and Python's methods of strings, lists and maps work (`pycompat`). Nothing is
//! escaped for HTML. `include`, `import` and `extends` are looked up beside the template that names them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::json;

use crate::inventory::Inventory;
use crate::{Map, Value};

/// Why a template could not be rendered.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong, as a sentence fragment.
    pub message: String,
    /// The template's name.
    pub template: String,
    /// The line in the template, from 1.
    pub line: Option<u32>,
    /// That line.
    pub source_line: Option<String>,
    /// Whether the template itself is written wrongly, rather than lacking a value.
    pub is_syntax: bool,
}

/// `inventory` as templates see it. It is made when the first template of a run is rendered, and shared by all: for each host a copy of a large fleet
/// would fill the memory. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct InventoryScope {
    inventory: Arc<Inventory>,
    made: Arc<OnceLock<minijinja::Value>>,
}

impl InventoryScope {
    /// What templates see of this inventory: `hosts`, a list, and `groups`, lists by name.
    pub fn new(inventory: Arc<Inventory>) -> Self {
        Self { inventory, made: Arc::default() }
    }

    fn value(&self) -> minijinja::Value {
        self.made.get_or_init(|| self.make()).clone()
    }

    fn make(&self) -> minijinja::Value {
        let of_host =
            |host: &crate::host::Host| minijinja::Value::from(minijinja::value::Serde(host_scope(&host.name, &host.groups, &host.data)));
        let hosts: Vec<minijinja::Value> = self.inventory.hosts.iter().map(|host| of_host(host)).collect();
        let groups: BTreeMap<&str, Vec<minijinja::Value>> = self
            .inventory
            .groups
            .iter()
            .map(|group| (group.name.as_str(), group.hosts.iter().map(|id| hosts[id.index()].clone()).collect()))
            .collect();
        let all = minijinja::context! { hosts, groups };
        minijinja::context! { inventory => all }
    }
}

/// A host as templates see it.
pub fn host_scope(name: &str, groups: &[String], data: &Map) -> Value {
    json!({ "name": name, "groups": groups, "data": data })
}

/// What becomes of the whitespace around blocks and at the end of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whitespace {
    /// Whether the first newline after a block (not after a variable) is left out.
    pub trim_blocks: bool,
    /// Whether spaces and tabs between the beginning of a line and a block are left out.
    pub lstrip_blocks: bool,
    /// Whether a newline at the end of a template is kept.
    pub keep_trailing_newline: bool,
}

impl Default for Whitespace {
    /// All of it stays as it is written.
    fn default() -> Self {
        Self { trim_blocks: false, lstrip_blocks: false, keep_trailing_newline: true }
    }
}

/// How other templates are found: from an absolute path to their text. An error is why there is none.
pub type Loader<'l> = dyn Fn(&str) -> Result<String, String> + 'l;

/// Renders the text of a template with the variables of `scope` (a map), and with `inventory` where that is given and `scope` has none of its own.
///
/// `name` is its path, beside which templates that it includes are looked up; each is asked of `loader` once by path.
///
/// # Errors
/// [`TemplateError`] with the template's own line. What `loader` says of a missing template is part of the message.
pub fn render(
    name: &str,
    text: &str,
    scope: &Value,
    inventory: Option<&InventoryScope>,
    loader: &Loader<'_>,
) -> Result<String, TemplateError> {
    render_with(Whitespace::default(), name, text, scope, inventory, loader)
}

/// The same as [`render`], with this handling of whitespace, also in the templates that are included.
///
/// # Errors
/// As [`render`].
pub fn render_with(
    whitespace: Whitespace,
    name: &str,
    text: &str,
    scope: &Value,
    inventory: Option<&InventoryScope>,
    loader: &Loader<'_>,
) -> Result<String, TemplateError> {
    // minijinja wants a loader that lives as long as the environment and may be shared, which ours (it looks into the facts of one diff)
    // cannot be. So missing templates are noted, read here and added, and the rendering starts again.
    let mut loaded = BTreeMap::from([(name.to_owned(), text.to_owned())]);
    let own = minijinja::Value::from(minijinja::value::Serde(scope));
    let variables = match inventory {
        Some(inventory) => minijinja::value::merge_maps([inventory.value(), own]),
        None => own,
    };
    loop {
        let wanted: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
        let environment = environment(&loaded, wanted.clone(), whitespace);
        let failure = match environment.get_template(name).and_then(|template| template.render(&variables)) {
            Ok(rendered) => return Ok(rendered),
            Err(error) => error,
        };
        let missing = std::mem::take(&mut *wanted.lock().expect("no one panics while holding it"));
        if missing.is_empty() {
            return Err(describe(&failure, name, &loaded));
        }
        for path in missing {
            let text =
                loader(&path).map_err(|why| TemplateError { message: why, is_syntax: false, ..describe(&failure, name, &loaded) })?;
            loaded.insert(path, text);
        }
    }
}

/// Checks a template's syntax without rendering it.
///
/// # Errors
/// [`TemplateError`] with the template's own line.
pub fn check(name: &str, text: &str) -> Result<(), TemplateError> {
    let loaded = BTreeMap::from([(name.to_owned(), text.to_owned())]);
    let environment = environment(&loaded, Arc::default(), Whitespace::default());
    let result = environment.get_template(name).map(|_| ());
    result.map_err(|error| describe(&error, name, &loaded))
}

fn environment(
    loaded: &BTreeMap<String, String>,
    wanted: Arc<std::sync::Mutex<Vec<String>>>,
    whitespace: Whitespace,
) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(whitespace.trim_blocks)
        .lstrip_blocks(whitespace.lstrip_blocks)
        .keep_trailing_newline(whitespace.keep_trailing_newline)
        .build();
    environment.set_syntax(syntax.expect("only the handling of whitespace differs from the default"));
    environment.set_debug(true);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_path_join_callback(|name, parent| {
        let folder = parent.rfind('/').map_or("", |at| &parent[..at]);
        let joined = if name.starts_with('/') || folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        joined.into()
    });
    let loaded = loaded.clone();
    environment.set_loader(move |name| {
        let found = loaded.get(name).cloned();
        if found.is_none() {
            wanted.lock().expect("no one panics while holding it").push(name.to_owned());
        }
        Ok(found)
    });
    environment
}

fn describe(error: &minijinja::Error, name: &str, loaded: &BTreeMap<String, String>) -> TemplateError {
    // The innermost error with a place is where a person has to look.
    let mut innermost = error;
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        if let Some(next) = next.downcast_ref::<minijinja::Error>()
            && next.line().is_some()
        {
            innermost = next;
        }
        source = next.source();
    }
    let template = innermost.name().unwrap_or(name).to_owned();
    let line = innermost.line().and_then(|line| u32::try_from(line).ok());
    let source_line = line.zip(loaded.get(&template)).and_then(|(line, text)| text.lines().nth(line as usize - 1));
    let is_syntax = innermost.kind() == ErrorKind::SyntaxError;
    let detail = innermost.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let message = match innermost.kind() {
        ErrorKind::UndefinedError => match undefined_name(innermost) {
            Some(variable) => format!("the variable `{variable}` is not defined"),
            None => format!("a variable is not defined{detail}"),
        },
        kind => format!("{kind}{detail}"),
    };
    TemplateError { message, template, line, source_line: source_line.map(|line| line.trim().to_owned()), is_syntax }
}

/// The text in the template that the error points to.
fn undefined_name(error: &minijinja::Error) -> Option<String> {
    let range = error.range()?;
    let source = error.template_source()?;
    let text = source.get(range)?.trim();
    (!text.is_empty() && text.len() <= 80).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render_one(text: &str, scope: Value) -> Result<String, TemplateError> {
        render("/t/main.j2", text, &scope, None, &|path| match path {
            "/t/part.j2" => Ok("part of {{ name }}\n".to_owned()),
            other => Err(format!("there is no template {other}")),
        })
    }

    #[test]
    fn templates_render_as_in_python() {
        let scope = json!({ "name": "web", "list": ["a", "b"], "map": { "k": 1 } });
        for (text, wanted) in [
            ("hello {{ name }}\n", "hello web\n"),
            ("{% for x in list %}{{ x.upper() }}{% endfor %}", "AB"),
            ("{{ map.items()|list|length }}", "1"),
            ("{% include 'part.j2' %}", "part of web\n"),
            ("<{{ '<b>' }}>", "<<b>>"),
        ] {
            assert_eq!(render_one(text, scope.clone()).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn whitespace_is_handled_as_asked() {
        let text = "a\n  {% if true %}\n{{ 1 }}\n  {% endif %}\n";
        let kept = Whitespace::default();
        for (whitespace, wanted) in [
            (kept, "a\n  \n1\n  \n"),
            (Whitespace { trim_blocks: true, ..kept }, "a\n  1\n  "),
            (Whitespace { lstrip_blocks: true, ..kept }, "a\n\n1\n\n"),
            (Whitespace { keep_trailing_newline: false, ..kept }, "a\n  \n1\n  "),
            (Whitespace { trim_blocks: true, lstrip_blocks: true, keep_trailing_newline: true }, "a\n1\n"),
        ] {
            let rendered = render_with(whitespace, "t", text, &json!({}), None, &|_| Err(String::new()));
            assert_eq!(rendered.as_deref(), Ok(wanted), "{whitespace:?}");
        }
        let included =
            render_with(Whitespace { keep_trailing_newline: false, ..kept }, "t", "{% include 'part' %}.\n", &json!({}), None, &|_| {
                Ok("part\n".to_owned())
            });
        assert_eq!(included.as_deref(), Ok("part."));
    }

    #[test]
    fn the_inventory_is_shared_and_hidden_by_variables_of_its_name() {
        let inventory = crate::inventory_builder::from_host_list("web-[1-2],db", Map::new()).expect("an inventory");
        let inventory = InventoryScope::new(Arc::new(inventory));
        let text = "{{ x }}: {% for h in inventory.hosts %}{{ h.name }} {% endfor %}{{ inventory.groups }}";
        let rendered = |scope: Value| render("t", text, &scope, Some(&inventory), &|_| Err(String::new()));
        assert_eq!(rendered(json!({ "x": 1 })).as_deref(), Ok("1: web-1 web-2 db {}"));
        let own = json!({ "x": 2, "inventory": { "hosts": [{ "name": "mine" }], "groups": 3 } });
        assert_eq!(rendered(own).as_deref(), Ok("2: mine 3"));
        assert!(rendered(json!({})).is_err_and(|error| error.message == "the variable `x` is not defined"));
    }

    #[test]
    fn errors_name_the_line_and_the_variable() {
        let error = render_one("first\n{{ nmae }}\n", json!({ "name": "x" })).expect_err("undefined");
        assert_eq!((error.line, error.source_line.as_deref()), (Some(2), Some("{{ nmae }}")));
        assert_eq!(error.message, "the variable `nmae` is not defined");
        let error = render_one("a\n{% if %}\n", json!({})).expect_err("syntax");
        assert!(error.is_syntax && error.line == Some(2), "{error:?}");
        let error = render_one("{% include 'other.j2' %}", json!({})).expect_err("missing");
        assert_eq!(error.message, "there is no template /t/other.j2");
    }
}
