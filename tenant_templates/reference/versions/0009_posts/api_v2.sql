CREATE VIEW posts WITH (security_invoker = true) AS
SELECT tenant_id, id, author_id, title, is_private, created_at, data
FROM v_post;

CREATE VIEW comments WITH (security_invoker = true) AS
SELECT tenant_id, id, post_id, author_id, created_at, data
FROM v_comment;

-- Of the posts that the viewer sees. `version` rises with every change of the document.
CREATE VIEW post_stats WITH (security_invoker = true) AS
SELECT
    s.tenant_id,
    s.id,
    s.version,
    s.synced_at,
    s.data || jsonb_build_object('version', s.version) AS data
FROM tv_post_stats AS s
WHERE s.data IS NOT NULL AND EXISTS (SELECT FROM v_post AS p WHERE p.tenant_id = s.tenant_id AND p.id = s.id);

CREATE FUNCTION create_post(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_post(input), 'post', 'posts');

CREATE FUNCTION update_post(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_update_post(input), 'post', 'posts');

-- Of what is gone there is no document: the answer keeps its id.
CREATE FUNCTION delete_post(input jsonb) RETURNS jsonb
RETURN fn_delete_post(input);

CREATE FUNCTION create_comment(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_comment(input), 'comment', 'comments');

CREATE FUNCTION delete_comment(input jsonb) RETURNS jsonb
RETURN fn_delete_comment(input);

CREATE OR REPLACE FUNCTION update_person(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_update_person_and_posts(input), 'person', 'people');
