-- Learns which model a request asks for, from its whole body: a JSON object with `model` at its top level, anywhere.
-- Sets txn.model to its name, or txn.fault to what is wrong with the body. A name that may be read in two ways is one of
-- those: an engine must never be asked for another model than the one that was routed, counted and logged.

local LONGEST_NAME = 200
local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- The text of a JSON string without its quotes.
local function unescaped(text)
  return (text:gsub("\\(.)(%x?%x?%x?%x?)", function(letter, digits)
    if letter == "u" and #digits == 4 then return utf8.char(tonumber(digits, 16)) end
    return (ESCAPES[letter] or letter) .. digits
  end))
end

-- The names that `model`, in whatever case, has at the top level of a JSON object: engines in Go take Model for model.
local function names(body)
  -- Of the same length and without escaped characters, so that each quote in it begins or ends a string.
  local plain = body:find("\\", 1, true) and body:gsub("\\.", "__") or body
  local found, depth = {}, 0
  local at = plain:match("^%s*()")
  if plain:sub(at, at) ~= "{" then return nil, "it is no JSON object" end
  repeat
    local start = plain:find('["{}%[%]]', at)
    if not start then return nil, "it is cut off" end
    local mark = plain:sub(start, start)
    at = start + 1
    if mark == '"' then
      local stop = plain:find('"', at, true)
      if not stop then return nil, "it is cut off" end
      local value = plain:match("^%s*:%s*()", stop + 1)
      if depth == 1 and value and stop - start <= 64 and unescaped(body:sub(at, stop - 1)):lower() == "model" then
        local last = plain:sub(value, value) == '"' and plain:find('"', value + 1, true)
        if not last then return nil, "its model is no text" end
        found[#found + 1] = unescaped(body:sub(value + 1, math.min(last - 1, value + 6 * LONGEST_NAME)))
        stop = last
      end
      at = stop + 1
    elseif mark == "{" or mark == "[" then
      depth = depth + 1
    else
      depth = depth - 1
    end
  until depth == 0
  if plain:find("%S", at) then return nil, "something follows its JSON object" end
  return found
end

core.register_action("read_model", { "http-req" }, function(txn)
  local found, fault = names(txn.f:req_body())
  if found and #found > 1 then fault = "it names its model more than once" end
  if found and #found == 1 and (#found[1] > LONGEST_NAME or found[1]:find("[^%w%._:/@+-]")) then
    fault = "its model has no name that a model can have"
  end
  if fault then
    txn:set_var("txn.fault", fault)
  elseif found[1] then
    txn:set_var("txn.model", found[1])
  end
end, 0)
