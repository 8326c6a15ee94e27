-- `people` is what the members of a tenant see of each other. `users` stays what it was promised to be: the list of
-- accounts, which never shows what this version brought.

CREATE VIEW people WITH (security_invoker = true) AS
SELECT tenant_id, id, name, email, phone, created_at, data
FROM v_person;

CREATE FUNCTION update_person(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_update_person(input), 'person', 'people');
