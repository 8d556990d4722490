//! Inventories in Lua: each global that is a list is a group.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use infra_core::Map;
use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::inventory::Inventory;
use infra_core::inventory_builder::{GroupEntry, HostEntry, InventoryBuilder, Member};
use infra_core::registry::Registry;
use mlua::{Lua, Table, Value as LuaValue};

use crate::convert::{to_value, type_name};
use crate::deploy::{Driver, Stop, load_files};
use crate::evaluation::{Evaluation, House, Limits};
use crate::source::Sources;
use crate::world::{self, World};

/// Reads an inventory file with the files of `group_data` beside it. `overrides` is data from the command line, over everything else.
///
/// # Errors
/// What is wrong with it, with file and line where they are known.
pub async fn load_inventory(path: &Path, world: Arc<dyn World>, overrides: Map) -> Result<Inventory, Box<Diagnostic>> {
    let path = world::absolute(&*world, path);
    let folder = path.parent().unwrap_or(Path::new("/")).join("group_data");
    let mut data_files: Vec<String> = match world.list_folder(&folder) {
        Ok(names) => names.into_iter().filter(|name| name.ends_with(".lua") && !name.starts_with('.')).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let shown = world::display(&*world, &folder);
            return Err(Box::new(Diagnostic::misuse(format!("the folder `{shown}` cannot be read: {error}"))));
        }
    };
    data_files.sort();
    let mut files = vec![path];
    files.extend(data_files.iter().map(|name| folder.join(name)));
    let sources = Sources::new(world.clone());
    let files = load_files(&*world, &sources, &files, false).map_err(|mut wrong| Box::new(wrong.swap_remove(0)))?;
    let (registry, inventory) = (Arc::new(Registry::default()), Arc::new(Inventory::default()));
    let house = Arc::new(House::new(world, sources, registry, inventory, files, Limits::default()));
    let mut driver = Driver::new(house, None);
    match driver.run(None).await {
        Stop::Done => {}
        // An inventory that fails leaves nothing to run on, whatever the reason.
        Stop::Failed(diagnostic) => return Err(Box::new(Diagnostic { fault: infra_core::diagnostic::Fault::Misuse, ..*diagnostic })),
        Stop::Facts(_) | Stop::Foresee(_) | Stop::Perform(_) | Stop::Returned(_) => {
            return Err(Box::new(Diagnostic::misuse("an inventory cannot ask for facts")));
        }
    }
    let evaluation = driver.evaluation().clone();
    let machine = driver.machine().ok_or_else(|| Box::new(Diagnostic::misuse("the inventory was given up while it was read")))?;
    let mut reader = Reader::new(&evaluation);
    let mut builder = reader.read(machine.lua())?;
    let file_data = std::mem::take(&mut evaluation.state().file_data);
    let mut by_group: BTreeMap<String, Map> = BTreeMap::new();
    for (at, data) in file_data {
        let name = data_files[at - 1].trim_end_matches(".lua");
        by_group.insert(name.to_owned(), data);
    }
    builder.all_data = by_group.remove("all").unwrap_or_default();
    for group in &mut builder.groups {
        // Data of groups that this inventory does not have belongs to another inventory beside it.
        if let Some(data) = group.name.as_ref().and_then(|name| by_group.remove(name)) {
            group.file_data = data;
        }
    }
    builder.overrides = overrides;
    builder.from_file = true;
    builder.build().map_err(|wrong| {
        let source_line = wrong.location.as_ref().and_then(|location| evaluation.house.sources.line(location));
        Box::new(Diagnostic { source_line, ..*wrong })
    })
}

/// Notes that a global was assigned.
pub(crate) fn note_group(lua: &Lua, evaluation: &Evaluation, name: &str) {
    let location = evaluation.chain(lua).pop().unwrap_or(Location { file: String::new(), line: 0 });
    let mut state = evaluation.state();
    if !state.groups.iter().any(|(known, _)| known == name) {
        state.groups.push((name.to_owned(), location));
    }
}

struct Reader<'e> {
    evaluation: &'e Evaluation,
    groups: Vec<GroupEntry>,
    /// The groups by their tables, so that a table that is another group is told by identity.
    by_table: HashMap<usize, usize>,
    lines: Lines,
}

/// The lines on which each quoted text of the inventory file stands.
struct Lines(HashMap<String, Vec<u32>>);

impl Lines {
    fn of(text: &str) -> Self {
        let mut lines: HashMap<String, Vec<u32>> = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let number = u32::try_from(at + 1).unwrap_or(0);
            for quote in ['"', '\''] {
                for inside in line.split(quote).skip(1).step_by(2) {
                    lines.entry(inside.to_owned()).or_default().push(number);
                }
            }
        }
        for places in lines.values_mut() {
            places.reverse();
        }
        Self(lines)
    }

    /// The next line on which this text stands. Texts are read in the order of the file.
    fn next(&mut self, text: &str) -> Option<u32> {
        let places = self.0.get_mut(text)?;
        if places.len() > 1 { places.pop() } else { places.last().copied() }
    }
}

impl<'e> Reader<'e> {
    fn new(evaluation: &'e Evaluation) -> Self {
        let lines = Lines::of(&evaluation.house.files[0].text);
        Self { evaluation, groups: Vec::new(), by_table: HashMap::new(), lines }
    }

    fn wrong(&self, location: &Location, message: String) -> Box<Diagnostic> {
        let source_line = self.evaluation.house.sources.line(location);
        Box::new(Diagnostic { location: Some(location.clone()), source_line, ..Diagnostic::misuse(message) })
    }

    fn read(&mut self, lua: &Lua) -> Result<InventoryBuilder, Box<Diagnostic>> {
        let globals = self.globals(lua)?;
        let noted = std::mem::take(&mut self.evaluation.state().groups);
        let mut tables: Vec<(usize, String, Table, Location)> = Vec::new();
        for (name, location) in noted {
            let value: LuaValue = globals.raw_get(name.as_str()).map_err(|error| self.wrong(&location, error.to_string()))?;
            let LuaValue::Table(table) = value else { continue };
            if name.starts_with('_') {
                continue;
            }
            if table.raw_len() == 0 && !table.is_empty() && table.raw_get::<LuaValue>("data").is_ok_and(|data| data.is_nil()) {
                let mut wrong =
                    self.wrong(&location, format!("`{name}` is a table of names, and each global table of an inventory is a group"));
                wrong.hint =
                    Some("a table that is no group is a local, or its name starts with `_`; data of a group is data = { … }".to_owned());
                return Err(wrong);
            }
            let place = self.groups.len();
            let entry = GroupEntry { name: Some(name.clone()), location: Some(location.clone()), ..GroupEntry::default() };
            self.groups.push(entry);
            // Two names for one table are two groups; the first is the one that others hold.
            self.by_table.entry(table.to_pointer() as usize).or_insert(place);
            tables.push((place, name, table, location));
        }
        for (place, name, table, location) in tables {
            self.fill(lua, place, &name, &table, &location, 0)?;
        }
        Ok(InventoryBuilder { groups: std::mem::take(&mut self.groups), ..InventoryBuilder::default() })
    }

    fn globals(&self, lua: &Lua) -> Result<Table, Box<Diagnostic>> {
        let named = lua.named_registry_value(GLOBALS);
        named.map_err(|error| Box::new(Diagnostic::misuse(format!("the inventory cannot be read: {error}"))))
    }

    /// Reads what stands in a group.
    fn fill(&mut self, lua: &Lua, place: usize, name: &str, table: &Table, location: &Location, depth: u32) -> Result<(), Box<Diagnostic>> {
        if depth > 100 {
            return Err(self.wrong(location, format!("`{name}` nests more than 100 lists, or holds itself")));
        }
        let length = table.raw_len();
        for pair in table.pairs::<LuaValue, LuaValue>() {
            let (key, value) = pair.map_err(|error| self.wrong(location, error.to_string()))?;
            match &key {
                LuaValue::Integer(index) if *index >= 1 && usize::try_from(*index).is_ok_and(|index| index <= length) => {}
                LuaValue::Integer(_) => {
                    let mut wrong = self.wrong(location, format!("the group `{name}` is a list with a hole"));
                    wrong.hint = Some("one of its items is nil: a missing comma or a misspelt name".to_owned());
                    return Err(wrong);
                }
                LuaValue::String(key) if key.as_bytes() == b"data" => self.groups[place].data = self.data(lua, location, name, &value)?,
                LuaValue::String(key) => {
                    let key = key.to_string_lossy();
                    let mut wrong = self.wrong(location, format!("the group `{name}` has `{key}` beside its hosts"));
                    wrong.hint = Some(format!("data of a group stands in its data: data = {{ {key} = … }}"));
                    return Err(wrong);
                }
                other => return Err(self.wrong(location, format!("the group `{name}` has {} as a key", type_name(other)))),
            }
        }
        for at in 1..=length {
            let item: LuaValue = table.raw_get(at).map_err(|error| self.wrong(location, error.to_string()))?;
            let member = self.member(lua, name, &item, location, depth)?;
            self.groups[place].members.push(member);
        }
        Ok(())
    }

    fn member(&mut self, lua: &Lua, group: &str, item: &LuaValue, location: &Location, depth: u32) -> Result<Member, Box<Diagnostic>> {
        let table = match item {
            LuaValue::String(text) => {
                let name = text.to_string_lossy();
                let location = self.host_location(&name, location);
                return Ok(Member::Host(HostEntry { name, data: Map::new(), location: Some(location) }));
            }
            LuaValue::Table(table) => table,
            LuaValue::Nil => {
                let mut wrong = self.wrong(location, format!("the group `{group}` is a list with a hole"));
                wrong.hint = Some("one of its items is nil: a missing comma or a misspelt name".to_owned());
                return Err(wrong);
            }
            other => {
                let mut wrong = self.wrong(location, format!("the group `{group}` holds {}", type_name(other)));
                wrong.hint = Some("a host is a string, or a table whose first item is its name".to_owned());
                return Err(wrong);
            }
        };
        if let Some(place) = self.by_table.get(&(table.to_pointer() as usize)) {
            return Ok(Member::Group(*place));
        }
        let first: LuaValue = table.raw_get(1).map_err(|error| self.wrong(location, error.to_string()))?;
        match (&first, table.raw_len()) {
            (LuaValue::String(name), 1) => {
                let name = name.to_string_lossy();
                let location = self.host_location(&name, location);
                let copy = lua.create_table().map_err(|error| self.wrong(&location, error.to_string()))?;
                for pair in table.pairs::<LuaValue, LuaValue>() {
                    let (key, value) = pair.map_err(|error| self.wrong(&location, error.to_string()))?;
                    if !matches!(key, LuaValue::Integer(1)) {
                        copy.raw_set(key, value).map_err(|error| self.wrong(&location, error.to_string()))?;
                    }
                }
                let data = self.data(lua, &location, &name, &LuaValue::Table(copy))?;
                Ok(Member::Host(HostEntry { name, data, location: Some(location) }))
            }
            (_, 0) => {
                let mut wrong = self.wrong(location, format!("the group `{group}` holds a table without the name of a host"));
                wrong.hint = Some("write { \"web-01\", ssh_port = 2222 }".to_owned());
                Err(wrong)
            }
            _ => {
                // A list without a name of its own: a group of hosts and groups that only this one holds.
                let place = self.groups.len();
                self.groups.push(GroupEntry { location: Some(location.clone()), ..GroupEntry::default() });
                self.by_table.insert(table.to_pointer() as usize, place);
                self.fill(lua, place, group, table, location, depth + 1)?;
                Ok(Member::Group(place))
            }
        }
    }

    fn host_location(&mut self, name: &str, group: &Location) -> Location {
        match self.lines.next(name) {
            Some(line) if group.file == self.evaluation.house.files[0].name => Location { file: group.file.clone(), line },
            _ => group.clone(),
        }
    }

    fn data(&self, lua: &Lua, location: &Location, name: &str, value: &LuaValue) -> Result<Map, Box<Diagnostic>> {
        let wrong = |message: String, hint: Option<String>| {
            let mut wrong = self.wrong(location, message);
            wrong.hint = hint;
            wrong
        };
        match to_value(lua, "data", value).map_err(|problem| wrong(format!("`{name}`: {}", problem.message), problem.hint))? {
            infra_core::Value::Object(map) => Ok(map),
            infra_core::Value::Array(items) if items.is_empty() && value.is_table() => Ok(Map::new()),
            _ => Err(wrong(format!("the data of `{name}` is {}, not a table of names and values", type_name(value)), None)),
        }
    }
}

/// Where the globals of a script are kept in a Lua state.
pub(crate) const GLOBALS: &str = "infra.globals";
