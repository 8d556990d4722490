-- Restarts a service across a fleet, a few hosts at a time: leave the load balancer, restart, wait until the service is well, join again.
--
--     infra inventories/app.lua deploys/rolling_restart.lua --dry     what would be done, on which hosts
--     infra inventories/app.lua deploys/rolling_restart.lua           do it
--
-- A wave goes through the whole block before the next one starts. When a host does not come back, no further wave starts, so the others keep serving;
-- the host itself stays out of the load balancer, because joining comes after waiting.
--
-- All that differs from fleet to fleet is data of the inventory, which inventories/app.lua shows:
--
--     service    the unit of systemd
--     drain      commands that take the host out of the load balancer; none where not given
--     join       commands that bring it back; none where not given
--     health     what says that the service is well: port, http, file or command, as server.wait takes them; the word of systemd where not given
--     batch      how many hosts go at once: 2, "25%", or { 1, "25%" } for a canary first; 1 where not given
--     max_fail   how many hosts of a wave may fail before the rest is left alone; 0 where not given

local service = host.data.service
local health = host:get("health", { command = sh("systemctl is-active --quiet {}", service) })

rolling("Restart " .. service, { batch = host:get("batch", 1), max_fail = host:get("max_fail", 0) }, function()
  if host:get("drain") then
    server.shell { name = "Leave the load balancer", commands = host:get("drain") }
  end

  systemd.service { name = "Restart", service = service, running = true, restarted = true }

  -- The later table wins, so `health` may give a timeout of its own.
  server.wait({ name = "Wait until it is well", timeout = 60 }, health)

  if host:get("join") then
    server.shell { name = "Join the load balancer", commands = host:get("join") }
  end
end)
