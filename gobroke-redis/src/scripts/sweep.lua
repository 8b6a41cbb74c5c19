#!lua flags=allow-oom
-- Cleans up a part of what an instance left behind. Whoever claims it goes on with it; a claim that is not renewed
-- lapses, so that a sweeper may die, too.
-- KEYS: unswept, places, groups of the instance, its clients, part by part
-- ARGV: id, cursor, claim in ms, clients at a time, prefix of the keys of groups
-- Gives back the next cursor, 'done', or 'taken'. A cursor is a part's number, and that within it.
local unswept, places, groups = unpack(KEYS)
local parts = {unpack(KEYS, 4)}
local id, cursor, claim, count, prefix = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HGET', unswept, id)
if not held then return 'done' end
if cursor == '' then
    if tonumber(held) > now then return 'taken' end
    cursor = '1 0'
end
redis.call('HSET', unswept, id, now + claim)

local part, within = string.match(cursor, '^(%d+) (%d+)$')
part = tonumber(part)
local left = tonumber(count)
for _ = 1, #parts do
    local scanned = redis.call('HSCAN', parts[part], within, 'COUNT', left)
    for i = 1, #scanned[2], 2 do
        local client = scanned[2][i]
        local place = redis.call('HGET', places, client)
        if place and string.match(place, '^%S+ (.*)$') == id then redis.call('HDEL', places, client) end
        redis.call('HDEL', parts[part], client)
        left = left - 1
    end
    within = scanned[1]
    if within == '0' then part = part % #parts + 1 end
    if left <= 0 then break end
end
for _, group in ipairs(redis.call('SPOP', groups, count)) do
    redis.call('SREM', prefix .. group, id)
end
if redis.call('EXISTS', groups, unpack(parts)) > 0 then return part .. ' ' .. within end
redis.call('HDEL', unswept, id)
return 'done'
