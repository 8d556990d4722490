-- Six machines that serve an application behind a load balancer, for deploys/rolling_restart.lua.
--
-- The load balancer asks each machine whether it wants to be left alone, which it says by the file /run/draining. Put your own commands in its place.

app_servers = {
  "app-[1-6]",
  data = {
    service = "myapp",
    drain   = { "touch /run/draining", "sleep 5" },           -- requests that are under way may end
    join    = { "rm -f /run/draining" },
    health  = { http = "http://localhost:8080/health", timeout = 30 },
    batch   = { 1, "25%" },                                    -- a canary first, then a quarter at a time
  },
}
