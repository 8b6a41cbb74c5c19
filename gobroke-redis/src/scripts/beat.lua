#!lua flags=allow-oom
-- A heartbeat: renews the lease, takes away those whose lease ended, and says what changed.
-- KEYS: state, instances, leases, batches, left, unswept, versions, rewriting
-- ARGV: name, incarnation, epoch known, epoch if a new one is needed, lease in ms, list version known, notice channel,
--   the highest version of envelopes that it knows, the command by which notices are published, the highest version of
--   the list that it has seen, the last of its batches that was confirmed
local state, instances, leases, batches, left, unswept, versions, rewriting = unpack(KEYS)
-- How long it is waited for somebody who writes everything again, in ms.
local patience = 600000
local name, incarnation, epoch, fresh, lease, version, channel, knows, publish, seen, confirmed = unpack(ARGV)
lease = tonumber(lease)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function number(text) return tonumber(string.match(text, '^%d+')) end

local changed = false
local joined = ''
local function remove(gone, inc, why)
    local id = gone .. '#' .. inc
    redis.call('HDEL', instances, gone)
    redis.call('HDEL', versions, gone)
    redis.call('ZREM', leases, gone)
    redis.call('HDEL', batches, id)
    redis.call('HDEL', rewriting, id)
    redis.call('HSET', left, id, why .. now)
    redis.call('HSET', unswept, id, 0)
    changed = true
end

-- The epoch is drawn with the first write into an empty Redis, or into one that went back to older data: another one
-- means that what was written is lost. Data is older if its list is, and nobody lives by it: an instance that was alone
-- with a former master has seen a later list, too, and must not take away the one by which the others live.
local stored = redis.call('HGET', state, 'epoch')
local current = tonumber(redis.call('HGET', state, 'list')) or 0
local last = tonumber(redis.call('HGET', state, 'beat'))
local older = stored and current < tonumber(seen) and last and now - last > lease / 2
if older then
    -- Who is in the list may have left since. Who is there comes back within a lease; what others have is cleaned up.
    local all = redis.call('HGETALL', instances)
    for i = 1, #all, 2 do
        local id = all[i] .. '#' .. all[i + 1]
        redis.call('HSET', unswept, id, now + lease)
        redis.call('HDEL', instances, all[i])
        redis.call('HDEL', versions, all[i])
        redis.call('ZREM', leases, all[i])
        redis.call('HDEL', batches, id)
        redis.call('HDEL', rewriting, id)
    end
end
if older or not stored then
    stored = fresh
    current = math.max(current, tonumber(seen))
    redis.call('HSET', state, 'epoch', fresh, 'born', now, 'list', current)
end

-- Nobody wrote for half a lease: Redis stood still, or has another clock. Deadlines move by that gap, so that nobody
-- is taken away for the absence of Redis itself.
if last and (now - last > lease / 2 or now < last) then
    local all = redis.call('ZRANGE', leases, 0, -1, 'WITHSCORES')
    for i = 1, #all, 2 do
        redis.call('ZADD', leases, math.min(all[i + 1] + (now - last), now + lease), all[i])
    end
end
redis.call('HSET', state, 'beat', now)

local held = redis.call('HGET', instances, name)
if held ~= incarnation then
    if held and number(held) > number(incarnation) then
        return {'superseded', number(held), time[1] * 1000000 + time[2]}
    end
    if stored == epoch then return {'expelled'} end
    -- Who is not back one lease after a loss of data has left: the others have been told so.
    local born = tonumber(redis.call('HGET', state, 'born'))
    if epoch ~= '' and born and now - born > lease then return {'expelled'} end
    if held then remove(name, held, 'r') end
    redis.call('HSET', instances, name, incarnation)
    redis.call('HSET', versions, name, knows)
    redis.call('HDEL', unswept, name .. '#' .. incarnation)
    local drawn = tonumber(redis.call('HGET', state, 'drawn')) or 0
    if number(incarnation) > drawn then
        redis.call('HSET', state, 'drawn', string.match(incarnation, '^%d+'))
    end
    changed = true
    joined = ' ' .. knows .. ' ' .. name .. '#' .. incarnation
end
redis.call('ZADD', leases, now + lease, name)

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. now)) do
    local inc = redis.call('HGET', instances, gone)
    if inc then remove(gone, inc, 'e') else redis.call('ZREM', leases, gone) end
end

-- Who finds that what it wrote is lost is about to write everything again. Until it has, others miss what it has; those
-- who do not come to an end with it are not waited for.
local id = name .. '#' .. incarnation
local batch = tonumber(redis.call('HGET', batches, id)) or 0
if batch < tonumber(confirmed) and not redis.call('HGET', rewriting, id) then
    redis.call('HSET', rewriting, id, now)
    changed = true
end
local others = 0
local all = redis.call('HGETALL', rewriting)
for i = 1, #all, 2 do
    local writer, inc = string.match(all[i], '^(.*)#(.*)$')
    if redis.call('HGET', instances, writer) ~= inc then
        redis.call('HDEL', rewriting, all[i])
    elseif all[i] ~= id and now - all[i + 1] < patience then
        others = others + 1
    end
end

if changed then
    current = redis.call('HINCRBY', state, 'list', 1)
    -- Who hears the newcomer has heard of it before.
    redis.call(publish, channel, current .. joined)
    -- Why somebody left is remembered for ten leases.
    local reasons = redis.call('HGETALL', left)
    for i = 1, #reasons, 2 do
        if tonumber(string.sub(reasons[i + 1], 2)) < now - 10 * lease then redis.call('HDEL', left, reasons[i]) end
    end
end

local first = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
local answer = {'here', stored, batch, current, math.max(tonumber(first[2]) - now, 0), {}, {}, {}, {}, others}
local sweeps = redis.call('HGETALL', unswept)
for i = 1, #sweeps, 2 do
    if tonumber(sweeps[i + 1]) <= now then table.insert(answer[6], sweeps[i]) end
end
if stored ~= epoch or tostring(current) ~= version then
    answer[7] = redis.call('HGETALL', instances)
    answer[8] = redis.call('HGETALL', left)
    answer[9] = redis.call('HGETALL', versions)
end
return answer
