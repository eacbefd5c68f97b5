-- Reads a part of a room's log, a bounded amount in one call.
--
-- KEYS[1]: `<base>store`. ARGV: the room, the seq after which to begin, or how many of the newest as a negative number,
-- how many at most.
-- Answers {newest order, epoch, first seq, last seq, seq of the first value, value...}. Places in a room's value are those of
-- `commit.lua`.

local call, format = redis.call, string.format
-- Events and bytes of one call: some milliseconds.
local EVENTS_MAX, BYTES_MAX = 1000, 2000000

local base = string.sub(KEYS[1], 1, -6)
local order = tonumber(call('HGET', KEYS[1], 'order') or '0')
local head = call('GET', base .. 'room:' .. ARGV[1])
head = head and cmsgpack.unpack(head) or { 0, 0, 1, 0 }
local epoch, first, last, through, pruned_through = head[1], head[3], head[4], head[6], head[8]
local answer = { format('%.0f', order), format('%.0f', epoch), format('%.0f', first), format('%.0f', last), '0' }
local from, limit = tonumber(ARGV[2]) + 1, tonumber(ARGV[3])
if from <= 0 then from = last + from end
if from < first then from = first end
if from > last or limit <= 0 then return answer end
local average = (through - pruned_through) / (last + 1 - first)
local count = math.min(limit, last + 1 - from, EVENTS_MAX, math.max(1, math.floor(BYTES_MAX / (average + 1))))
answer[5] = format('%.0f', from)
local log = base .. 'log:' .. ARGV[1]
for at, entry in ipairs(call('XRANGE', log, format('%.0f-0', from), '+', 'COUNT', format('%.0f', count))) do
  if entry[1] ~= format('%.0f-0', from + at - 1) then break end
  answer[5 + at] = entry[2][2]
end
if #answer < 5 + count then return redis.error_reply('MISSING events of a log are not there') end
return answer
