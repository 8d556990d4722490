-- An experiment: many servers and as many load generators, each with arguments of its own, all at the same time.
--
--     infra inventories/experiment.lua deploys/experiment.lua --dry     what would be done
--     infra inventories/experiment.lua deploys/experiment.lua -vvv      do it, with every line that the processes print
--
-- With the inventory beside it: 24 servers on two machines and 24 generators on two others, twelve processes on each. The servers have `_background`: they
-- are ended when the last generator has ended, on whatever machine. Each line of output begins with its machine and its operation.
--
-- What was measured lies then beside this file, in a folder for each machine: results/lab-03/generator-1.csv.
--
-- The machines need python3 and nothing else.

local folder = "/var/tmp/infra-experiment"
local serves = host.groups.server_machines
local each, port = host.data.each, host.data.port

-- The number of this machine among its like: the first generator machine asks the first server machine.
local number
for at, machine in ipairs(inventory:group(serves and "server_machines" or "generator_machines")) do
  if machine.name == host.name then number = at end
end
local partner = inventory:group("server_machines")[number]

-- Each server has a seed of its own; a generator that knows it can tell that it was answered by the right one.
local function seed(i) return 1000 * number + i end

files.directory { name = "A folder for the experiment", path = folder }
files.put { name = "The server", src = "experiment/server.py", dest = folder .. "/server.py", mode = "644" }
files.put { name = "The generator", src = "experiment/generator.py", dest = folder .. "/generator.py", mode = "644" }

parallel("Measure", function()
  for i = 1, each do
    if serves then
      server.shell {
        name = "server " .. i,
        commands = sh("exec python3 {} {} {} {}", folder .. "/server.py", port + i - 1, seed(i), folder .. "/server-" .. i .. ".csv"),
        _background = true,
      }
    else
      server.shell {
        name = "generator " .. i,
        commands = sh("exec python3 {} {} {} {} {} {}", folder .. "/generator.py", partner:get("address", partner.name), port + i - 1,
          seed(i), host.data.seconds, folder .. "/generator-" .. i .. ".csv"),
        _timeout = host.data.seconds + 60,
      }
    end
  end
end)

for i = 1, each do
  local result = (serves and "server-" or "generator-") .. i .. ".csv"
  files.get {
    name = "Fetch " .. result,
    src = folder .. "/" .. result,
    dest = "results/" .. host.name .. "/" .. result,
    create_local_dir = true,
  }
end
