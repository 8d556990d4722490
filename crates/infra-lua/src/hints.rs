//! What people who come from other languages type, and how Lua says it.

/// The Lua spelling for a word of another language that Lua reads as a name.
pub(crate) fn foreign_word(name: &str) -> Option<&'static str> {
    Some(match name {
        "True" | "TRUE" => "write true",
        "False" | "FALSE" => "write false",
        "None" | "null" | "undefined" | "NULL" => "write nil",
        "len" => "the length of a list or a string is #list",
        "str" => "write tostring(x)",
        "int" | "float" => "write tonumber(x)",
        "range" => "write for i = 1, 10 do … end",
        "elif" => "write elseif",
        "def" => "write function name(arguments) … end",
        "import" | "from" => "operations are there without an import",
        "append" => "write table.insert(list, x)",
        "isinstance" => "write type(x) == \"table\"",
        "enumerate" => "write for i, x in ipairs(list) do … end",
        "open" => "read a file with read_file(path)",
        "f" => "join texts with `..`, or use string.format(\"%s\", x)",
        "inventory_hostname" => "write host.name",
        _ => return None,
    })
}

/// What to write instead of a line that does not parse. `message` is Lua's own.
pub(crate) fn syntax_hint(message: &str, line: &str, text: &str) -> Option<String> {
    let code = without_strings(line);
    let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let first = words.first().copied().unwrap_or_default();
    let has = |sign: &str| code.contains(sign);
    let hint = |text: &str| Some(text.to_owned());
    if has("!=") {
        return hint("Lua writes `~=` for not equal");
    }
    for sign in ["+=", "-=", "*=", "/="] {
        if has(sign) {
            return Some(format!("Lua has no `{sign}`: write x = x {} 1", &sign[..1]));
        }
    }
    if has("&&") || has("||") {
        return hint("Lua writes `and`, `or` and `not`");
    }
    if has("[[") && (code.contains("[:") || line.contains("[[:")) {
        return hint("`]]` ends the text early: write [=[ … ]=]");
    }
    if let Some(at) = code.find("0o") {
        let digits: String = code[at + 2..].chars().take_while(char::is_ascii_digit).collect();
        return Some(format!("Lua has no octal numbers: write a mode as a string, \"{digits}\""));
    }
    if line.trim_start().starts_with('#') || message.contains("near '#'") {
        return hint("comments start with `--`");
    }
    if line.trim_start().starts_with("//") || line.trim_start().starts_with("/*") {
        return hint("comments start with `--`");
    }
    if first == "def" {
        return hint("write function name(arguments) … end");
    }
    if first == "elif" || words.contains(&"elif") {
        return hint("write elseif … then");
    }
    if first == "import" || first == "from" {
        return hint("operations are there without an import; one's own files are taken in with include(\"file.lua\")");
    }
    if first == "try" || first == "except" {
        return hint("write local ok, error = pcall(function() … end)");
    }
    if code.trim_end().ends_with(':') {
        return hint(match first {
            "if" | "elseif" => "write if … then … end",
            "for" => "write for _, x in ipairs(list) do … end",
            "while" => "write while … do … end",
            "else" => "write else, without a colon",
            _ => "Lua has no blocks by indentation: they end with `end`",
        });
    }
    if first == "lambda" || words.contains(&"lambda") {
        return hint("write function(x) return … end");
    }
    if line.contains("\":") || line.contains("':") || line.contains("\" :") {
        return hint("Lua writes { a = 1 }, and { [\"a b\"] = 1 } for names that are no words");
    }
    if has("!") {
        return hint("Lua writes `not` for `!`");
    }
    if line.contains("f\"") || line.contains("f'") {
        return hint("join texts with `..`, or use string.format(\"%s\", x)");
    }
    if has("++") || has("--;") {
        return hint("write x = x + 1");
    }
    if words.first() == Some(&"local") && has("+ =") {
        return hint("write x = x + 1");
    }
    if words.contains(&"null") || words.contains(&"None") {
        return hint("write nil");
    }
    if message.contains("'end' expected") || message.contains("<eof>") {
        let opened_twice = text.lines().any(|line| without_strings(line).contains("else if "));
        if opened_twice {
            return hint("`else if` opens a second `if` that needs its own `end`: write elseif");
        }
        if message.contains("'end' expected") {
            return hint("a block (if, for, function) is not closed by an `end`");
        }
    }
    if message.contains("'}' expected") {
        return hint("the items of a table are separated by commas");
    }
    if message.contains("near 'if'") && code.contains("if =") {
        return hint("the argument is `_if`");
    }
    if message.contains("unfinished string") {
        return hint("the text is not closed by a quote on its line; a text of several lines is [[ … ]]");
    }
    if message.contains("'then' expected") && code.contains('=') && !code.contains("==") {
        return hint("equal is written `==`");
    }
    None
}

/// What to do about an error while a script runs.
pub(crate) fn runtime_hint(message: &str, line: &str) -> Option<String> {
    let hint = |text: &str| Some(text.to_owned());
    if message.contains("attempt to call a table value") && line.contains(" in ") {
        return hint("go through a list with ipairs(list), and through names with pairs(table)");
    }
    if message.contains("got secret)") || message.contains("a secret value") {
        return hint(crate::secrets::ALLOWED);
    }
    if message.contains("'for' initial value must be a number") {
        return hint("write for i = 1, n do … end");
    }
    if message.contains("nil value") && line.contains("[0]") {
        return hint("lists start at 1");
    }
    if message.contains("attempt to add a 'string'") || message.contains("with a 'string'") {
        return hint("texts are joined with `..`");
    }
    if message.contains("attempt to perform bitwise operation") {
        return hint("`|`, `&` and `~` are for conditions and numbers; plain values are combined with `or`, `and` and `not`");
    }
    if message.contains("memory than its limit") {
        return hint("look for a table or a text that grows without end, and for functions that call each other without end");
    }
    if message.contains("attempt to concatenate a nil value") {
        return hint("one of the parts is nil: a misspelt name, or data that this host does not have");
    }
    None
}

/// A line with the insides of its quoted strings and its comment left out.
fn without_strings(line: &str) -> String {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            Some(open) => {
                if c == '\\' {
                    chars.next();
                } else if c == open {
                    quote = None;
                    out.push(c);
                }
            }
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                out.push(c);
            }
            None if c == '-' && chars.peek() == Some(&'-') => break,
            None => out.push(c),
        }
    }
    out
}
