//! A control group of its own for every machine (cgroups(7)).
//!
//! systemd on a machine keeps its services in groups below the group that it was started in. Two machines started in one
//! group would find `system.slice/ssh.service` of each other there, and now and then remove it from under a service that
//! the other is just starting.

use std::path::{Path, PathBuf};

use crate::error::BenchError;
use crate::guardian::{Duty, Guardian};

/// Makes a group called `label` below the group of this process, in every hierarchy that systemd uses: the unified one, and
/// on older controllers the one called `systemd`. Gives their folders, or none where they are there already.
pub(crate) fn create(guardian: &Guardian, label: &str) -> Result<Vec<PathBuf>, BenchError> {
    let read = |file: &str| std::fs::read_to_string(file).map_err(BenchError::file("read", file));
    let folders: Vec<PathBuf> =
        own_groups(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?).into_iter().map(|group| group.join(label)).collect();
    for folder in &folders {
        guardian.take_on(Duty::ControlGroup(folder))?;
        match std::fs::create_dir(folder) {
            // A machine that is switched on again.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(BenchError::file("create", folder))?,
        }
    }
    Ok(folders)
}

/// The folders of a process's own groups, from its `cgroup` and `mountinfo` (proc(5)).
fn own_groups(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((place, source)) = line.split_once(" - ") else {
            continue;
        };
        let mut place = place.split(' ').skip(3);
        let (Some(mounted), Some(at)) = (place.next(), place.next()) else {
            continue;
        };
        let mut source = source.split(' ');
        let kind = source.next().unwrap_or_default();
        let options = source.nth(1).unwrap_or_default();
        let named = options.split(',').any(|option| option == "name=systemd");
        let hierarchy = match kind {
            "cgroup2" => "0::",
            "cgroup" if named => ":name=systemd:",
            _ => continue,
        };
        let own = groups.lines().find_map(|line| match hierarchy {
            "0::" => line.strip_prefix(hierarchy),
            _ => line.split_once(hierarchy).map(|(_, own)| own),
        });
        // Where only a part of the hierarchy is mounted, its own paths still count from the top.
        let below = own.and_then(|own| Path::new(own).strip_prefix(mounted).ok());
        if let Some(below) = below {
            found.push(Path::new(at).join(below));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchies_of_systemd_are_found_on_old_and_new_controllers() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let mixed = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let part = "30 23 0:26 /box/1 /sys/fs/cgroup rw - cgroup2 cgroup rw";
        for (groups, mounts, expected) in [
            ("0::/user.slice/session-1.scope\n", unified, &["/sys/fs/cgroup/user.slice/session-1.scope"][..]),
            ("9:name=systemd:/a\n4:memory:/b\n0::/\n", mixed, &["/sys/fs/cgroup/systemd/a", "/sys/fs/cgroup/unified/"]),
            ("0::/box/1/in\n", part, &["/sys/fs/cgroup/in"]),
            ("0::/elsewhere\n", part, &[]),
            ("", "", &[]),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(own_groups(groups, mounts), expected);
        }
    }
}
