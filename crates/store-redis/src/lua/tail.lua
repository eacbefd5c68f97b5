-- Reads the newest of a room's log, back to an order, a bounded amount in one call: most who ask have missed little.
--
-- KEYS[1]: `<base>store`. ARGV: the room, the order after which events are wanted, the seq before which to begin or 0
-- for the end of the log, how many at most.
-- Answers {epoch, order of the newest event that is no longer kept, 1 if there are no older ones that are wanted, seq of
-- the first value, value...}, the newest first.

local call, format = redis.call, string.format
local EVENTS_MAX, BYTES_MAX = 1000, 2000000

local base = string.sub(KEYS[1], 1, -6)
local head = call('GET', base .. 'room:' .. ARGV[1])
head = head and cmsgpack.unpack(head) or { 0, 0, 1, 0, 1, 0, 0, 0 }
local epoch, first, last, through, pruned_order, pruned_through = head[1], head[3], head[4], head[6], head[7], head[8]
local order, before, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local from = before > 0 and before - 1 or last
local answer = { format('%.0f', epoch), format('%.0f', pruned_order), '1', format('%.0f', from) }
if from < first then return answer end
local average = (through - pruned_through) / (last + 1 - first)
local count = math.min(limit, from + 1 - first, EVENTS_MAX, math.max(1, math.floor(BYTES_MAX / (average + 1))))
local log, most = base .. 'log:' .. ARGV[1], format('%.0f', count)
local entries = call('XREVRANGE', log, format('%.0f-0', from), format('%.0f-0', first), 'COUNT', most)
for at, entry in ipairs(entries) do
  if entry[1] ~= format('%.0f-0', from + 1 - at) then break end
  local value = entry[2][2]
  if struct.unpack('>I8', value, 2) <= order then return answer end
  answer[4 + at] = value
end
if #answer < 4 + count then return redis.error_reply('MISSING events of a log are not there') end
if from + 1 - count > first then answer[3] = '0' end
return answer
