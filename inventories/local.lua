-- This machine, as the user who runs infra. No ssh, nothing to set up.

here = { "@local" }
