-- A fleet of four web servers, the last of which is the canary.
--
-- The names are looked up by your own ssh, so a stanza in ~/.ssh/config is all that a host needs.

web_servers = {
  "web-[01-03]",
  { "web-04", role = "canary" },
  data = { http_port = 80, greeting = "Hello" },
}
