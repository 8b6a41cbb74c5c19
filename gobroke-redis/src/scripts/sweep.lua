#!lua flags=allow-oom
-- Cleans up a part of what an instance left behind. Whoever claims it goes on with it; a claim that is not renewed
-- lapses, so that a sweeper may die, too.
-- KEYS: unswept, places, clients of the instance, groups of the instance
-- ARGV: id, cursor, claim in ms, clients at a time, prefix of the keys of groups
-- Gives back the next cursor, 'done', or 'taken'.
local unswept, places, clients, groups = unpack(KEYS)
local id, cursor, claim, count, prefix = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HGET', unswept, id)
if not held then return 'done' end
if cursor == '' then
    if tonumber(held) > now then return 'taken' end
    cursor = '0'
end
redis.call('HSET', unswept, id, now + claim)

local scanned = redis.call('HSCAN', clients, cursor, 'COUNT', count)
for i = 1, #scanned[2], 2 do
    local client = scanned[2][i]
    local place = redis.call('HGET', places, client)
    if place and string.match(place, '^%S+ (.*)$') == id then redis.call('HDEL', places, client) end
    redis.call('HDEL', clients, client)
end
for _, group in ipairs(redis.call('SPOP', groups, count)) do
    redis.call('SREM', prefix .. group, id)
end
if redis.call('EXISTS', clients, groups) > 0 then return scanned[1] end
redis.call('HDEL', unswept, id)
return 'done'
