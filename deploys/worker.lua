-- A worker of one's own under systemd, on a machine that has nothing of it yet: its user, its folder, its settings, and the unit that runs it.
--
--     infra inventories/fleet.lua deploys/worker.lua --user root --dry --diff     what would be done: all of it is known beforehand
--     infra inventories/fleet.lua deploys/worker.lua --user root --prove          do it, and see that nothing is left to do
--
-- What is below its home is done as the new user, which the plan can tell although there is no such user yet.

local user, home = host:get("worker_user", "worker"), host:get("worker_home", "/srv/worker")

deploy("Worker", function()
  server.user { name = "User", user = user, home = home, shell = "/usr/sbin/nologin", system = true }

  with({ _sudo = true, _sudo_user = user }, function()
    files.directory { name = "Folder", path = home .. "/etc", mode = "750" }
    files.file { name = "Settings", path = home .. "/etc/worker.conf", mode = "640" }
    files.line { name = "How many at once", path = home .. "/etc/worker.conf", line = "^at_once = .*", replace = "at_once = 4" }
  end)

  local unit = files.template {
    name = "Unit",
    src  = "templates/worker.service.j2",
    dest = "/etc/systemd/system/worker.service",
    mode = "644",
    vars = { user = user, home = home, command = host:get("worker_command", "/bin/sleep infinity") },
  }

  -- What systemd makes of the unit is known when it has read it, so this depends on the unit in the plan.
  systemd.service { name = "Run", service = "worker", running = true, enabled = true, daemon_reload = unit.did_change, restarted = unit.did_change }
end)
