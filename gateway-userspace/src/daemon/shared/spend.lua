-- What gateways take of quotas that they share, many in one exchange.
-- KEYS: a quota each. ARGV, seven for each: microseconds a unit takes to come back (0: a window); the bucket's depth in
-- microseconds, or the window's amount; how long a window is kept (ms); what the first request wants; what all want; what
-- is wanted in advance; what was spent already, less what is given back.
-- Answers two numbers for each: how much is granted, and how much is used then (microseconds until the bucket is full,
-- or units).
local time = redis.call('TIME')
-- Since 2023, so that fractions of microseconds are not lost.
local now = (time[1] - 1700000000) * 1000000 + time[2]
local said = {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 7
  local unit, most, keep = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local first, all = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local spare, spent = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
  local word = tonumber(redis.call('GET', key) or '0')
  local window = unit == 0
  local used = word
  if window then
    unit = 1
  else
    used = math.max(word - now, 0)
    -- Left over from a slower limit.
    if used > 2 * most + 100000 then used = most end
  end
  local before = used
  used = math.max(used + spent * unit, 0)
  -- Debts end at twice what there is.
  if not window then used = math.min(used, math.max(2 * most, before)) end
  local granted = math.min(all + spare, math.max(math.floor((most - used) / unit + 0.000001), 0))
  -- What is full gives anything.
  if granted < first and used == 0 then granted = first end
  used = used + granted * unit
  if granted > 0 or spent ~= 0 then
    if window then
      redis.call('SET', key, string.format('%.0f', used), 'PX', keep)
    elseif used > 0 then
      redis.call('SET', key, string.format('%.17g', now + used), 'PX', math.ceil(used / 1000) + 1)
    else
      redis.call('DEL', key)
    end
  end
  said[2 * i - 1] = granted
  said[2 * i] = math.ceil(used)
end
return said
