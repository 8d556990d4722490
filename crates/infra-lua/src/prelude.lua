-- What waits for an answer or runs a body has to be Lua: a Rust function that calls back into Lua cannot yield.
-- Arguments: the functions written in Rust, the table of globals, the globals as scripts see them, the mark of a request.
local rust, globals, environment, REQUEST = ...

local raw_resume, raw_yield, raw_create = coroutine.resume, coroutine.yield, coroutine.create
local isyieldable, pack, unpack = coroutine.isyieldable, table.pack, table.unpack
local next, type, select, setmetatable, getmetatable = next, type, select, setmetatable, getmetatable
local rawget, sort, pcall, xpcall, error, raw_load = rawget, table.sort, pcall, xpcall, error, load
local raw_pairs = pairs

local function closing(leave, value)
  return setmetatable({}, { __close = function() leave(value) end })
end

-- Asks for what was noted before. `what` is the name for the message where it is not possible.
local function request(what)
  if not isyieldable() then
    rust.not_here(what)
  end
  raw_yield(REQUEST, what)
end

-- A script's own coroutines pass requests on.
local function resume(co, ...)
  local depth = rust.enter_coroutine()
  local results = pack(raw_resume(co, ...))
  -- An operation inside `call` stops a coroutine by itself, and then there is no mark.
  while results[1] and (results[2] == REQUEST or results.n == 1 and rust.is_pending()) do
    if not isyieldable() then
      rust.leave_coroutine(depth)
      rust.not_here(results[3] or "an operation")
    end
    raw_yield(REQUEST, results[3])
    results = pack(raw_resume(co))
  end
  rust.leave_coroutine(depth)
  -- The coroutine ended with the operation itself.
  if rust.is_pending() and isyieldable() then
    raw_yield(REQUEST)
  end
  return unpack(results, 1, results.n)
end

-- Errors of functions written in Rust reach a script as text, like those of Lua.
local function caught(ok, value, ...)
  if ok then
    return true, value, ...
  end
  return false, rust.error_text(value)
end

globals.pcall = function(body, ...)
  return caught(pcall(body, ...))
end

globals.xpcall = function(body, handler, ...)
  return xpcall(body, function(value)
    return handler(rust.error_text(value))
  end, ...)
end

globals.coroutine.resume = function(co, ...)
  return caught(resume(co, ...))
end
globals.coroutine.wrap = function(body)
  local co = raw_create(body)
  return function(...)
    local results = pack(resume(co, ...))
    if results[1] then
      return unpack(results, 2, results.n)
    end
    error(results[2], 0)
  end
end

-- `pairs` goes through sorted keys, so that what a script writes is the same every run.
local rank = { number = 1, string = 2, boolean = 3 }
local function before(a, b)
  local of_a, of_b = type(a), type(b)
  if of_a ~= of_b then
    return (rank[of_a] or 4) < (rank[of_b] or 4)
  end
  if of_a == "number" or of_a == "string" then
    return a < b
  end
  return of_a == "boolean" and not a and b
end

local function sorted_pairs(value)
  local meta = getmetatable(value)
  if type(value) ~= "table" or type(meta) == "table" and meta.__pairs then
    return raw_pairs(value)
  end
  local hidden = rust.own_pairs(value)
  if hidden then
    return hidden(value)
  end
  local keys, count = {}, 0
  for key in next, value do
    count = count + 1
    keys[count] = key
  end
  sort(keys, before)
  local at = 0
  return function()
    while at < count do
      at = at + 1
      local found = rawget(value, keys[at])
      if found ~= nil then
        return keys[at], found
      end
    end
  end, value, nil
end
globals.pairs = sorted_pairs

-- Text only: bytecode could do anything.
globals.load = function(chunk, name, mode, ...)
  if mode ~= nil and mode ~= "t" and mode ~= "bt" then
    return nil, "load takes text, not bytecode"
  end
  local env = environment
  if select("#", ...) > 0 then
    env = (...)
  end
  return raw_load(chunk, name, "t", env)
end

local methods = {}

function methods.fact(self, name, arguments)
  rust.ask_fact(self, name, arguments)
  request("host:fact")
  return rust.answer()
end

function methods.facts(self, questions)
  rust.ask_facts(self, questions)
  request("host:facts")
  return rust.answers(questions)
end

methods.get = rust.host_get
methods.log = rust.host_log

globals.local_command = function(arguments)
  rust.ask_command(arguments)
  request("local_command")
  return rust.output()
end

local secret = globals.secret

function secret.command(arguments)
  rust.ask_secret_command(arguments)
  request("secret.command")
  return rust.secret_output()
end

function secret.prompt(text)
  rust.ask_person(true, text)
  request("secret.prompt")
  return rust.person_answer(true)
end
rust.guard_secret()

globals.ask = function(text, default)
  rust.ask_person(false, text, default)
  request("ask")
  return rust.person_answer(false)
end

globals.once = function(body)
  rust.ask_once(body)
  request("once")
  local mine, value = rust.turn()
  if not mine then
    return value
  end
  local results
  do
    local guard <close> = closing(rust.leave_once, rust.enter_once())
    results = pack(pcall(body))
  end
  rust.tell_once(results[1], results[2])
  request("once")
  if not results[1] then
    error(results[2], 0)
  end
  return results[2]
end

for _, kind in ipairs({ "with", "deploy", "parallel", "rolling" }) do
  globals[kind] = function(...)
    local body, depth, conditions = rust.enter_block(kind, ...)
    local guard <close> = closing(rust.leave_block, depth)
    if conditions then
      for at = 1, #conditions do
        rust.found_condition(depth, conditions[at]())
      end
    end
    return body()
  end
end

globals.include = function(path, ...)
  local chunk, depth = rust.enter_include(path)
  local guard <close> = closing(rust.leave_file, depth)
  return chunk(...)
end

local modules, LOADING = {}, {}
globals.require = function(name)
  local chunk, key = rust.find_module(name)
  local found = modules[key]
  if found == LOADING then
    rust.circular(name)
  end
  if found == nil then
    modules[key] = LOADING
    local guard <close> = closing(function()
      if modules[key] == LOADING then
        modules[key] = nil
      end
    end)
    local file <close> = closing(rust.leave_file, rust.enter_module(name))
    found = chunk(name)
    if found == nil then
      found = true
    end
    modules[key] = found
  end
  return found
end

local function main(count)
  for at = 1, count do
    local chunk, depth = rust.start_file(at)
    local guard <close> = closing(rust.leave_file, depth)
    rust.end_file(at, (chunk()))
  end
end

local function run(count)
  return xpcall(main, rust.on_error, count)
end

-- Reads the handle of an operation.
local function handle_index(handle, key)
  if key == "will_change" and rust.ask_plan(handle) then
    request("handle.will_change")
    return rust.foreseen()
  end
  return rust.read_handle(handle, key)
end

-- Runs a function that the script left behind.
local function late(body, ...)
  return xpcall(body, rust.on_error, ...)
end

return run, methods, sorted_pairs, handle_index, late
