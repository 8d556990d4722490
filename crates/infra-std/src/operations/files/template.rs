//! The operation `files.template`.

use std::cell::Cell;
use std::sync::Arc;

use infra_core::change::Change;
use infra_core::diagnostic::did_you_mean;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts, LocalFile};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resources, normal_path};
use infra_core::template::{self, TemplateError, Whitespace};
use infra_core::{Map, Value};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::put::check_source;
use super::yes;
use crate::facts::files::directory::Directory;
use crate::facts::files::file::File;
use crate::facts::files::sha256::Sha256;
use crate::facts::files::text::Text;
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_content::{Destination, ModeWish, NewContent, Standing, digest_of};
use crate::file_status::{Found, Status};
use crate::ownership::Ownership;
use crate::placement::Obstacle;

/// Makes sure that a file holds what a template gives.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Template {
    /// The local file that is the template.
    #[schemars(extend("x-local-path" = true))]
    pub src: Option<String>,
    /// The template itself, in place of `src`.
    pub content: Option<String>,
    /// The path of the file on the host; a link to a file is followed.
    #[schemars(extend("x-host-path" = true))]
    pub dest: String,
    /// The user who shall own it: a name or a number.
    pub user: Option<String>,
    /// The group that shall own it: a name or a number.
    pub group: Option<String>,
    /// Its mode; `true` for that of the template.
    pub mode: Option<ModeWish>,
    /// The variables of the template, beside `host` and `inventory`.
    #[serde(default)]
    pub vars: Map,
    /// A table of booleans for the whitespace around blocks and at the end: `trim_blocks`, `lstrip_blocks`, `keep_trailing_newline`.
    #[serde(default)]
    pub jinja_env_kwargs: TemplateSettings,
    /// What the template sees of the host, filled in when the operation is called: `host`, with the data that it has then.
    #[serde(default)]
    #[schemars(extend("x-template-scope" = true))]
    pub scope: Value,
    /// Whether to make missing directories on the way; they get the same `user` and `group`.
    #[serde(default = "yes")]
    pub create_remote_dir: bool,
    /// Whether to put something that is no file out of the way.
    #[serde(default)]
    pub force: bool,
    /// Whether to keep what is put out of the way, under its name and the time.
    #[serde(default = "yes")]
    pub force_backup: bool,
    /// The directory on the host to keep it in; beside the path where not given.
    #[schemars(extend("x-host-path" = true))]
    pub force_backup_dir: Option<String>,
}

/// What becomes of the whitespace around blocks and at the end.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateSettings {
    /// Whether the first newline after a block is left out; no, where not given.
    pub trim_blocks: Option<bool>,
    /// Whether spaces and tabs before a block on its line are left out; no, where not given.
    pub lstrip_blocks: Option<bool>,
    /// Whether the newline at the end of the template is kept; yes, where not given.
    pub keep_trailing_newline: Option<bool>,
}

impl TemplateSettings {
    fn whitespace(self) -> Whitespace {
        let usual = Whitespace::default();
        Whitespace {
            trim_blocks: self.trim_blocks.unwrap_or(usual.trim_blocks),
            lstrip_blocks: self.lstrip_blocks.unwrap_or(usual.lstrip_blocks),
            keep_trailing_newline: self.keep_trailing_newline.unwrap_or(usual.keep_trailing_newline),
        }
    }
}

/// The name of a template that has no file.
const WITHOUT_FILE: &str = "content";

impl Template {
    fn obstacle(&self) -> Obstacle<'_> {
        Obstacle { force: self.force, backup: self.force_backup, backup_dir: self.force_backup_dir.as_deref() }
    }

    fn destination<'a>(&'a self, path: &'a str, ownership: Ownership<'a>) -> Destination<'a> {
        Destination { path, ownership, create_remote_dir: self.create_remote_dir, obstacle: self.obstacle() }
    }

    fn scope(&self) -> Value {
        let mut scope = self.scope.as_object().cloned().unwrap_or_default();
        scope.extend(self.vars.clone());
        Value::Object(scope)
    }

    fn render(&self, facts: &Facts<'_>, text: &str) -> Result<String, DiffError> {
        let is_missing = Cell::new(false);
        let loader = |path: &str| {
            if !path.starts_with('/') {
                return Err(format!("{path} cannot be found, for a template given as `content` has no place of its own"));
            }
            let file = facts.local(path).map_err(|error| {
                is_missing.set(is_missing.get() || matches!(error, DiffError::Missing));
                error.to_string()
            })?;
            file.text().map(str::to_owned).ok_or_else(|| format!("{path} is not UTF-8 text of at most 16 MiB"))
        };
        let scope = self.scope();
        let name = self.src.as_deref().unwrap_or(WITHOUT_FILE);
        template::render_with(self.jinja_env_kwargs.whitespace(), name, text, &scope, facts.inventory(), &loader)
            .map_err(|error| if is_missing.get() { DiffError::Missing } else { refusal(&error, &scope) })
    }

    /// The file of the controller, where there is one, and what the template gives.
    fn make(&self, facts: &Facts<'_>) -> Result<(Option<Arc<LocalFile>>, String), DiffError> {
        let local = self.src.as_deref().map(|src| facts.local(src)).transpose()?;
        let text = match (&local, &self.content) {
            (Some(file), _) => {
                file.text().ok_or_else(|| DiffError::refused(format!("{} is not UTF-8 text of at most 16 MiB", file.path)))?
            }
            (None, content) => content.as_deref().unwrap_or_default(),
        };
        let rendered = self.render(facts, text)?;
        Ok((local, rendered))
    }
}

/// What a person reads when a template cannot be rendered: its file, its line, and the line itself.
fn refusal(error: &TemplateError, scope: &Value) -> DiffError {
    let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
    let source = error.source_line.as_deref().map(|line| format!(", in `{line}`")).unwrap_or_default();
    let message = format!("{}{line}: {}{source}", error.template, error.message);
    let variable = error.message.strip_prefix("the variable `").and_then(|rest| rest.strip_suffix("` is not defined"));
    let known = scope.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let hint = variable.map(|name| {
        let default = format!("write {{{{ {name} | default(…) }}}}");
        // What a value holds is no name that can stand in `vars`.
        let give = if name.contains('.') { default } else { format!("give it: vars = {{ {name} = … }}, or {default}") };
        did_you_mean(name, known).unwrap_or(give)
    });
    DiffError::Refused { message, hint }
}

impl Operation for Template {
    const NAME: &'static str = "files.template";
    const DOC: &'static str = "Makes sure that a file holds what a Jinja2 template gives, with its owner, group and mode.\n\n\
        The template (`src`, or `content` for one that is written in the deploy) sees `vars`, `host` and `inventory`. A variable that is \
        not defined is an error with the template's own line; the newline at the \
        end is kept; `include`, `import` and `extends` are looked up beside the template that names them. The file is then written as \
        `files.put` writes one, and nothing is changed when it holds the \
        same already.\n\n\
        `jinja_env_kwargs` is a table of booleans that say what becomes of whitespace, in included templates too: `trim_blocks` leaves out \
        the first newline after a block, `lstrip_blocks` the spaces and tabs before a block on its line, and `keep_trailing_newline = \
        false` the newline at the end.";

    fn check(&self) -> Result<(), Misuse> {
        check_source(self.src.as_deref(), self.content.as_deref(), self.mode.as_ref(), &self.dest)?;
        if self.dest.ends_with('/') {
            return Err(Misuse::new("`dest` ends with a slash, so it names a directory").hint("write the whole path of the file"));
        }
        if let Some(content) = &self.content {
            template::check(WITHOUT_FILE, content).map_err(|error| {
                let line = error.line.map(|line| format!(" in line {line}")).unwrap_or_default();
                Misuse::new(format!("`content` is no template{line}: {}", error.message))
            })?;
        }
        self.obstacle().check("dest", &self.dest)
    }

    fn touches(&self) -> Resources {
        self.destination(&normal_path(&self.dest), Ownership::default()).may_touch()
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let path = normal_path(&self.dest);
        let made = self.make(facts);
        // A template that cannot be rendered is so whatever stands on the host: no question about the host makes it wait for another operation.
        if let Err(refused @ DiffError::Refused { .. }) = made {
            return Err(refused);
        }
        // All is noted as missing before anything is given up.
        let standing = Standing::ask(facts, &path);
        let (local, rendered) = made?;
        let mode = ModeWish::resolve(self.mode.as_ref(), local.as_deref());
        let ownership = Ownership { user: self.user.as_deref(), group: self.group.as_deref(), mode: mode.as_ref() };
        self.destination(&path, ownership).write(facts, &standing?, NewContent::of_text(&rendered))
    }

    fn examples() -> Vec<Example> {
        let root = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
        let conf = File::at("/etc/app.conf");
        let digest = Sha256::at("/etc/app.conf");
        let base = |title, args| {
            Example::new(title, args)
                .fact(&Directory::at("/etc"), Found::Is(Status::foreseen(0o755, "root", "root", None)))
                .fact(&Identity {}, root.clone())
                .local("/deploy/app.conf.j2", "# {{ host.name }}\nport = {{ port }}\n")
        };
        let args = |vars: Value| json!({ "src": "/deploy/app.conf.j2", "dest": "/etc/app.conf", "vars": vars, "scope": { "host": { "name": "web" } } });
        let wish = args(json!({ "port": 80 }));
        let file = || Found::Is(Status::foreseen(0o644, "root", "root", Some(16)));
        vec![
            base("Write a file", wish.clone()).fact(&conf, Found::Nothing).fact(&digest, Found::Nothing).steps(["upload /etc/app.conf"]),
            base("Write it anew", wish.clone())
                .fact(&conf, file())
                .fact(&digest, Found::Is(digest_of("# web\nport = 8080\n")))
                .fact(&Text::at("/etc/app.conf"), Found::Is("# web\nport = 8080\n".into()))
                .steps(["upload /etc/app.conf"]),
            base("Leave it", wish).fact(&conf, file()).fact(&digest, Found::Is(digest_of("# web\nport = 80\n"))).nothing("as wished"),
            base("A variable that is missing", args(json!({ "prt": 80 })))
                .fact(&conf, Found::Nothing)
                .fact(&digest, Found::Nothing)
                .refused("/deploy/app.conf.j2:2: the variable `port` is not defined, in `port = {{ port }}`"),
            base("A text as template", json!({ "content": "{{ 1 + 1 }}\n", "dest": "/etc/app.conf" }))
                .fact(&conf, file())
                .fact(&digest, Found::Is(digest_of("2\n")))
                .nothing("as wished"),
            base(
                "Leave out the lines of blocks",
                json!({
                    "content": "{% for x in [1, 2] %}\n{{ x }}\n{% endfor %}\n",
                    "dest": "/etc/app.conf",
                    "jinja_env_kwargs": { "trim_blocks": true, "lstrip_blocks": true },
                }),
            )
            .fact(&conf, file())
            .fact(&digest, Found::Is(digest_of("1\n2\n")))
            .nothing("as wished"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully};

    use super::*;

    fn template(args: Value) -> Template {
        serde_json::from_value(args).expect("arguments")
    }

    fn table() -> MadeUp {
        let who = WhoAsks { user: "me".into(), group: "us".into(), uid: Some(7), gid: Some(8), umask: 0o027, home: "/".into() };
        MadeUp::new()
            .fact(&Directory::at("/d"), Found::Is(Status::foreseen(0o755, "root", "root", None)))
            .fact(&File::at("/d/f"), Found::Nothing)
            .fact(&Sha256::at("/d/f"), Found::Nothing)
            .fact(&Identity {}, who)
    }

    #[test]
    fn includes_are_read_beside_the_template() {
        let table = table().local("/t/main.j2", "{% include 'part.j2' %}!\n").local("/t/part.j2", "part of {{ a }}");
        let wish = template(json!({ "src": "/t/main.j2", "dest": "/d/f", "vars": { "a": "b" }, "scope": { "a": "hidden" } }));
        let (change, rounds) = diff_fully(&*erase(wish), &table).expect("a change");
        assert_eq!((rounds, change.texts[0].after.as_str()), (1, "part of b!\n"));
    }

    #[test]
    fn an_error_names_the_template_that_has_it_and_the_nearest_name() {
        let table = table().local("/t/main.j2", "{% include 'part.j2' %}!\n").local("/t/part.j2", "x\n{{ prt }}");
        let wish = template(json!({ "src": "/t/main.j2", "dest": "/d/f", "vars": { "port": 1 } }));
        let error = diff_fully(&*erase(wish), &table).expect_err("a misspelt name");
        let DiffError::Refused { message, hint } = error else { panic!("a refusal: {error}") };
        assert_eq!(message, "/t/part.j2:2: the variable `prt` is not defined, in `{{ prt }}`");
        assert_eq!(hint.as_deref(), Some("did you mean `port`?"));
    }

    #[test]
    fn the_way_out_can_be_written_as_it_stands() {
        for (variable, wanted) in [
            ("token", "give it: vars = { token = … }, or write {{ token | default(…) }}"),
            ("site.token", "write {{ site.token | default(…) }}"),
        ] {
            let table = table().local("/t/main.j2", format!("{{{{ {variable} }}}}"));
            let wish = template(json!({ "src": "/t/main.j2", "dest": "/d/f", "vars": { "site": { "port": 1 } } }));
            let error = diff_fully(&*erase(wish), &table).expect_err("a variable that is nowhere");
            let DiffError::Refused { hint, .. } = error else { panic!("a refusal: {error}") };
            assert_eq!(hint.as_deref(), Some(wanted));
        }
    }

    #[test]
    fn a_missing_include_is_named() {
        let table = table().local("/t/main.j2", "a\n{% include 'none.j2' %}\n").local_failed("/t/none.j2", "there is no file /t/none.j2");
        let error = diff_fully(&*erase(template(json!({ "src": "/t/main.j2", "dest": "/d/f" }))), &table).expect_err("no include");
        assert!(error.to_string().contains("there is no file /t/none.j2"), "{error}");
    }

    #[test]
    fn whitespace_is_handled_as_asked_also_in_includes() {
        let table = table().local("/t/main.j2", "  {% if true %}\na\n{% endif %}\n{% include 'part.j2' %}\n");
        let table = table.local("/t/part.j2", "  {% if true %}\nb\n{% endif %}\n");
        for (settings, wanted) in [
            (json!({}), "  \na\n\n  \nb\n\n\n"),
            (json!({ "trim_blocks": true, "lstrip_blocks": true }), "a\nb\n"),
            (json!({ "keep_trailing_newline": false }), "  \na\n\n  \nb\n"),
        ] {
            let wish = template(json!({ "src": "/t/main.j2", "dest": "/d/f", "jinja_env_kwargs": settings }));
            let (change, _) = diff_fully(&*erase(wish), &table).expect("a change");
            assert_eq!(change.texts[0].after, wanted, "{settings}");
        }
    }

    #[test]
    fn settings_that_are_none_are_named() {
        let registry = crate::registry();
        let args = json!({ "content": "a", "dest": "/a", "jinja_env_kwargs": { "trim_block": true } });
        let Value::Object(args) = args else { panic!("a map") };
        let error = registry.operation("files.template").expect("an operation").bind(args).expect_err("a misspelt name");
        assert!(error.to_string().contains("trim_block"), "{error}");
    }

    #[test]
    fn misuse_is_named() {
        for args in [json!({ "dest": "/a" }), json!({ "dest": "/a/", "src": "/b" }), json!({ "dest": "/a", "content": "{% if %}" })] {
            assert!(template(args.clone()).check().is_err(), "{args}");
        }
    }
}
