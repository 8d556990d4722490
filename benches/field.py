"""What the measurements share: the hosts, the peers, and how a run is timed."""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
INFRA = TARGET / "release" / "infra"
PEERS = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "infra-benches" / "bin"


class Hosts:
    """Hosts on this machine, each at the end of a wire on which a round trip takes so many milliseconds (0: no wire)."""

    def __init__(self, count, milliseconds):
        self.process = subprocess.Popen(
            [TARGET / "release" / "distant-hosts", str(count), str(milliseconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = json.loads(self.process.stdout.readline())
        self.hosts, self.user = said["hosts"], said["user"]
        self.ssh_config, self.known_hosts, self.user_key = said["ssh_config"], said["known_hosts"], said["user_key"]
        self.folder = pathlib.Path(said["folder"])
        self.names = [host["name"] for host in self.hosts]

    def traffic(self):
        """What went over the wires since the last time this was asked: a dictionary of lists, one number for each host."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def timed(command, environment=None, quiet=True, folder=None):
    """Runs a command. Gives wall seconds, and processor seconds of it and of all its children; stops where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    ran(command, environment, quiet, folder)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def told(command, environment=None, folder=None):
    """Runs a command whose last line is what it has measured of itself: wall seconds and processor seconds."""
    return tuple(float(word) for word in ran(command, environment, True, folder).splitlines()[-1].split())


def ran(command, environment, quiet, folder):
    """Runs a command. Gives what it said, where that is not shown; stops where it fails."""
    ended = subprocess.run(
        [str(word) for word in command], env={**os.environ, **(environment or {})}, cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None, stderr=subprocess.STDOUT if quiet else None)
    said = (ended.stdout or b"").decode(errors="replace")
    if ended.returncode != 0:
        sys.exit(f"{command[0]} ended with {ended.returncode}:\n{said[-4000:]}")
    return said


def processor_of(ids):
    """The processor seconds that these processes, which have not ended, have had so far: proc(5), `stat`."""
    ticks = 0
    for one in ids:
        user, system = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def middle(runs):
    """The median of each of the columns of several runs."""
    return [statistics.median(column) for column in zip(*runs)]


def infra_environment(hosts, folder):
    """Where infra finds the hosts' ssh_config, and a home of its own for journals."""
    home = pathlib.Path(folder) / "home"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    return {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "XDG_RUNTIME_DIR": ""}


def write_inventories(folder, hosts):
    """Writes the hosts as `inventory.lua`, and as `curve25519.lua` with the key exchange that the libraries of the peers agree on with the sshd."""
    names = ", ".join(f'"{name}"' for name in hosts.names)
    curve = pathlib.Path(folder) / "curve25519_config"
    curve.write_text(f"KexAlgorithms curve25519-sha256\nInclude {hosts.ssh_config}\n")
    for name, config in (("inventory", hosts.ssh_config), ("curve25519", curve)):
        (pathlib.Path(folder) / f"{name}.lua").write_text(f'hosts = {{ {names}, data = {{ ssh_config_file = "{config}" }} }}\n')


def ssh_alone(hosts, folder, way):
    """A command that runs `true` on all hosts at once, each by an ssh of its own, with the configuration of `inventory.lua` or `curve25519.lua`."""
    config = hosts.ssh_config if way == "inventory" else pathlib.Path(folder) / f"{way}_config"
    each = f'ssh -F "{config}" -o BatchMode=yes "$host" true || touch "$failed" &'
    return ["sh", "-c", f'failed=$(mktemp -u); for host; do {each} done; wait; ! rm "$failed" 2>/dev/null', "sh", *hosts.names]


def table(head, rows):
    """Prints rows under a head, columns aligned."""
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))).rstrip())
