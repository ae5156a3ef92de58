-- Health of ToolzzCredential, ToolzzConnection and ClusterToolzzConnection: what `kubectl wait` and Flux (kstatus) say too.
local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not looked at this version yet."}
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready
if ready == nil then
  return {status = "Progressing", message = "The operator has not said whether it is ready."}
end

local health = {status = "Progressing", message = ready.reason .. ": " .. ready.message}
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  health.status = "Degraded"
elseif ready.status == "True" then
  -- Also one that is suspended: it works as it did.
  health.status = "Healthy"
elseif ready.reason == "Suspended" then
  health.status = "Suspended"
end
return health
