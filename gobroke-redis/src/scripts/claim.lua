#!lua flags=allow-oom
-- Renews the lease of a logic module that runs once, or takes it.
--
-- A lease is "<token> <deadline in ms, 0 for none> <instance>".
-- KEYS: singletons
-- ARGV: logic, instance, the token that it holds or '', lease in ms, 1 to take it where nobody has it
-- Gives back the token and who has it, '' for nobody.
local singletons = KEYS[1]
local logic, instance, held, lease, take = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token, deadline, holder = '0', '0', ''
local stored = redis.call('HGET', singletons, logic)
if stored then token, deadline, holder = string.match(stored, '^(%d+) (%d+) (.*)$') end

local function keep(kept)
    redis.call('HSET', singletons, logic, kept .. ' ' .. string.format('%.0f', now + lease) .. ' ' .. instance)
    return {kept, instance}
end

local lives = tonumber(deadline) > now
-- A token that is larger than what is stored was lost here, and is the newest.
if held ~= '' and tonumber(held) >= tonumber(token) then return keep(held) end
if lives and holder == instance then return keep(token) end
if lives then return {token, holder} end
if take ~= '1' then return {token, ''} end
return keep(string.format('%.0f', math.max(tonumber(token) + 1, time[1] * 1000000 + time[2])))
