#!lua flags=allow-oom
-- Renews the lease of a logic module that runs once, or takes it.
--
-- A lease is "<token> <when it was renewed, in µs> <instance>"; of nobody's, the instance is ''. Its time is over when
-- it has not changed for so long by the clock of who asks, so no clock of a server's gives it away.
-- KEYS: state, singletons
-- ARGV: logic, instance, the token that it holds or '', the epoch that it knows, 1 to take it where nobody has it,
--   the lease that it has seen for so long that its time is over, or ''
-- Gives back the token, who has it ('' for nobody), and the lease as it is stored.
local state, singletons = unpack(KEYS)
local logic, instance, held, epoch, take, over = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local token, holder = '0', ''
local stored = redis.call('HGET', singletons, logic)
if stored then token, holder = string.match(stored, '^(%d+) %d+ (.*)$') end

local function keep(kept)
    local lease = kept .. ' ' .. string.format('%.0f', now) .. ' ' .. instance
    redis.call('HSET', singletons, logic, lease)
    return {kept, instance, lease}
end

-- A token that is larger than what is stored was lost here, and is the newest.
if held ~= '' and tonumber(held) >= tonumber(token) then return keep(held) end
if holder == instance then return keep(token) end
if holder ~= '' and stored ~= over then return {token, holder, stored} end
-- Who asks does not know yet that what was written is lost, or that it is another Redis.
if take ~= '1' or redis.call('HGET', state, 'epoch') ~= epoch then return {token, '', stored or ''} end
return keep(string.format('%.0f', math.max(tonumber(token) + 1, now)))
