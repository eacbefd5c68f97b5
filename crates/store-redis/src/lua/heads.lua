-- Reads how far several rooms have come.
--
-- KEYS[1]: `<base>store`. ARGV: the rooms.
-- Answers {newest order, order up to which a failover may have lost events; for each room: order of the newest event
-- that is no longer kept, of the newest in the log, of the newest among the latest}, as text.

local call = redis.call
local base = string.sub(KEYS[1], 1, -6)
local store = call('HMGET', KEYS[1], 'order', 'lost')
local answer = { store[1] or '0', store[2] or '0' }
for _, name in ipairs(ARGV) do
  local head = call('GET', base .. 'room:' .. name)
  head = head and cmsgpack.unpack(head) or {}
  for _, at in ipairs({ 7, 14, 17 }) do answer[#answer + 1] = string.format('%.0f', head[at] or 0) end
end
return answer
