//! A bridge with a subnet of its own, and a network namespace per machine on it.
//!
//! The subnet stands in the bridge's name, and the kernel lets a name exist only once: so making the bridge is what
//! reserves the subnet, also against test processes that run at the same time.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::error::BenchError;
use crate::guardian::{Duty, Guardian};
use crate::process::{program, run, run_well};

const DEADLINE: Duration = Duration::from_secs(20);

/// How many machines a fleet can have: addresses `.11` to `.109`.
pub(crate) const MOST_MACHINES: usize = 99;

/// The bridge of a fleet. The controller has the address `.1` on it; nothing leads out of it.
pub(crate) struct Bridge {
    ip: PathBuf,
    /// `it-X-Y` for 10.X.Y.0/24.
    pub(crate) name: String,
    subnet: String,
}

/// A machine's place on the bridge.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    ip: PathBuf,
    /// The network namespace's name, and that of the interface on the controller's side.
    pub(crate) namespace: String,
    pub(crate) address: String,
}

impl Bridge {
    /// Makes a bridge with a subnet that nobody on this controller uses.
    pub(crate) fn create(guardian: &Guardian) -> Result<Self, BenchError> {
        let ip = program("ip")?;
        let mut last = String::new();
        let tries = 64;
        for _ in 0..tries {
            let (x, y) = (rand::random_range(128..=250_u8), rand::random::<u8>());
            let bridge = Bridge { ip: ip.clone(), name: format!("it-{x}-{y}"), subnet: format!("10.{x}.{y}") };
            let range = format!("{}.0/24", bridge.subnet);
            if !bridge.ip(&["-4", "route", "show", "to", "root", &range])?.is_empty() {
                last = format!("there is a route into {range}");
                continue;
            }
            // The hardware address tells our bridge from somebody else's of that name: so the duty can come first.
            let [c, d, e, f] = rand::random::<[u8; 4]>();
            let hardware = format!("02:00:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            guardian.take_on(Duty::Bridge(&bridge.name, &hardware))?;
            let made = run(Command::new(&ip).args(["link", "add", &bridge.name, "address", &hardware, "type", "bridge"]), DEADLINE)?;
            if !made.success() {
                last = made.stderr;
                continue;
            }
            bridge.ip(&["addr", "add", &format!("{}.1/24", bridge.subnet), "dev", &bridge.name])?;
            bridge.ip(&["link", "set", &bridge.name, "up"])?;
            return Ok(bridge);
        }
        Err(BenchError::NothingFree { what: "subnet", tries, last })
    }

    /// Makes the place of machine `number` (from 0): a namespace with an interface `host0` on this bridge.
    pub(crate) fn add_place(&self, guardian: &Guardian, number: usize) -> Result<Place, BenchError> {
        let place = Place {
            ip: self.ip.clone(),
            namespace: format!("{}-{}", self.name, number + 1),
            address: format!("{}.{}", self.subnet, number + 11),
        };
        let Place { namespace, address, .. } = &place;
        guardian.take_on(Duty::Namespace(namespace))?;
        guardian.take_on(Duty::Link(namespace))?;
        self.ip(&["netns", "add", namespace])?;
        self.ip(&["link", "add", namespace, "type", "veth", "peer", "name", "host0", "netns", namespace])?;
        self.ip(&["link", "set", namespace, "master", &self.name, "up"])?;
        self.ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", "host0"])?;
        self.ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        place.plug(true)?;
        Ok(place)
    }

    fn ip(&self, arguments: &[&str]) -> Result<String, BenchError> {
        run_well(Command::new(&self.ip).args(arguments), DEADLINE)
    }
}

impl Place {
    /// Where the namespace can be entered.
    pub(crate) fn namespace_file(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }

    /// Plugs the machine's cable in or out. Without it nothing answers at its address, not even with a refusal.
    pub(crate) fn plug(&self, into: bool) -> Result<(), BenchError> {
        let state = if into { "up" } else { "down" };
        run_well(Command::new(&self.ip).args(["-n", &self.namespace, "link", "set", "host0", state]), DEADLINE).map(drop)
    }

    /// Makes the controller forget which hardware has this address. Then it finds out at once that nobody has it, and says
    /// *no route to host* after three seconds.
    pub(crate) fn forget(&self) -> Result<(), BenchError> {
        run_well(Command::new(&self.ip).args(["neigh", "flush", "to", &self.address]), DEADLINE).map(drop)
    }
}
