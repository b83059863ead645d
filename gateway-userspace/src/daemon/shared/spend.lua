-- What gateways take of quotas that they share, many in one exchange.
-- KEYS: a quota each. ARGV, eight for each: what it is (bucket, window, sliding); microseconds a unit takes to come back,
-- or a part of a sliding window lasts; the bucket's depth in microseconds, or the window's amount; how long a window is
-- kept (ms); what the first request wants; what all want; what is wanted in advance; what was spent already, less what is
-- given back.
-- Answers four numbers for each: how much is granted; how much is used then (microseconds until the bucket is full, or
-- units); of sliding windows in how many microseconds there is what the first one wants, and when anything comes back.
local PARTS = 20
local time = redis.call('TIME')
-- Since 2023, so that fractions of microseconds are not lost.
local now = (time[1] - 1700000000) * 1000000 + time[2]

-- What is full gives anything.
local function grant(left, used, ask)
  local granted = math.min(ask.all + ask.spare, math.max(left, 0))
  if granted < ask.first and used == 0 then granted = ask.first end
  return granted
end

local function bucket(key, unit, depth, ask)
  local used = math.max(tonumber(redis.call('GET', key) or '0') - now, 0)
  -- Left over from a slower limit.
  if used > 2 * depth + 100000 then used = depth end
  -- Debts end at twice what there is.
  used = math.min(math.max(used + ask.spent * unit, 0), math.max(2 * depth, used))
  local granted = grant(math.floor((depth - used) / unit + 0.000001), used, ask)
  used = used + granted * unit
  if granted > 0 or ask.spent ~= 0 then
    if used > 0 then
      redis.call('SET', key, string.format('%.17g', now + used), 'PX', math.ceil(used / 1000) + 1)
    else
      redis.call('DEL', key)
    end
  end
  return granted, used
end

local function window(key, amount, keep, ask)
  local used = math.max(tonumber(redis.call('GET', key) or '0') + ask.spent, 0)
  local granted = grant(amount - used, used, ask)
  used = used + granted
  if granted > 0 or ask.spent ~= 0 then
    redis.call('SET', key, string.format('%.0f', used), 'PX', keep)
  end
  return granted, used
end

-- A hash of what was used by part. As in one gateway, the whole of the oldest counts as long as any of it is within the span.
local function sliding(key, part, amount, ask)
  local index = math.floor(now / part)
  local parts, used, over = {}, 0, {}
  local held = redis.call('HGETALL', key)
  for at = 1, #held, 2 do
    local of = tonumber(held[at])
    if of < index - PARTS then
      over[#over + 1] = held[at]
    else
      parts[of] = tonumber(held[at + 1])
      used = used + parts[of]
    end
  end
  local function add(of, units)
    parts[of] = (parts[of] or 0) + units
    used = used + units
    redis.call('HINCRBY', key, of, units)
  end
  -- What is given back was taken of late: off the oldest, it lets nothing in too early.
  local back = math.max(-ask.spent, 0)
  for of = index - PARTS, index do
    local off = math.min(back, parts[of] or 0)
    if off > 0 then
      add(of, -off)
      back = back - off
    end
  end
  if ask.spent > 0 then add(index, ask.spent) end
  local granted = grant(amount - used, used, ask)
  if granted > 0 then add(index, granted) end
  if granted > 0 or ask.spent ~= 0 then
    redis.call('PEXPIRE', key, math.ceil((PARTS + 1) * part / 1000))
    if #over > 0 then redis.call('HDEL', key, unpack(over)) end
  end
  local wanted = math.max(ask.first, 1)
  local left, wait, next = used, nil, nil
  if left == 0 or left + wanted <= amount then wait = 0 end
  for ends = 0, PARTS do
    local gone = parts[index - PARTS + ends] or 0
    local until_then = (index + 1 + ends) * part - now
    left = left - gone
    if gone > 0 then next = next or until_then end
    if left <= 0 or left + wanted <= amount then wait = wait or until_then end
  end
  return granted, used, math.ceil(wait or (PARTS + 1) * part), math.ceil(next or 0)
end

local said = {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 8
  local number = function(n) return tonumber(ARGV[at + n]) end
  local kind, unit, most = ARGV[at + 1], number(2), number(3)
  local ask = { first = number(5), all = number(6), spare = number(7), spent = number(8) }
  local granted, used, wait, next
  if kind == 'bucket' then
    granted, used = bucket(key, unit, most, ask)
  elseif kind == 'window' then
    granted, used = window(key, most, number(4), ask)
  else
    granted, used, wait, next = sliding(key, unit, most, ask)
  end
  said[4 * i - 3], said[4 * i - 2] = granted, math.ceil(used)
  said[4 * i - 1], said[4 * i] = wait or 0, next or 0
end
return said
