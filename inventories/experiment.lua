-- Four machines for deploys/experiment.lua: two that serve and two that ask them.
--
-- The machines find each other by these names. Where they do not, give a server machine its address: { "lab-01", address = "10.0.0.7" }.

server_machines    = { "lab-01", "lab-02" }
generator_machines = { "lab-03", "lab-04" }

lab = {
  server_machines,
  generator_machines,
  data = {
    each    = 12,       -- processes on each machine
    port    = 9001,     -- of the first server of a machine; the others count on from there
    seconds = 10,       -- how long each generator asks
  },
}
