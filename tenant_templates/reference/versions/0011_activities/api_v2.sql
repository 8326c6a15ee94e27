-- Two resources, because one condition with OR could use neither index. The card is looked up for the rows of a page
-- only: it stands in the document, and no order or filter needs that.

-- What the caller did.
CREATE VIEW activities WITH (security_invoker = true) AS
SELECT
    a.tenant_id,
    a.id,
    a.type,
    a.user_id,
    a.created_at,
    jsonb_build_object(
        '__typename', 'Activity',
        'id', a.id,
        'type', a.type,
        'user', (SELECT c.data FROM v_author_card AS c WHERE c.tenant_id = a.tenant_id AND c.id = a.user_id),
        'details', a.details,
        'created_at', a.created_at
    ) AS data
FROM v_activity AS a
WHERE a.user_id = (SELECT tenancy.current_user_id());

-- What everybody did, for moderators and admins.
CREATE VIEW tenant_activities WITH (security_invoker = true) AS
SELECT
    a.tenant_id,
    a.id,
    a.type,
    a.user_id,
    a.created_at,
    jsonb_build_object(
        '__typename', 'Activity',
        'id', a.id,
        'type', a.type,
        'user', (SELECT c.data FROM v_author_card AS c WHERE c.tenant_id = a.tenant_id AND c.id = a.user_id),
        'details', a.details,
        'created_at', a.created_at
    ) AS data
FROM v_activity AS a
WHERE (SELECT tenancy.current_roles() && ARRAY['moderator', 'admin']);

CREATE FUNCTION track_page_view(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_track_page_view(input), 'activity', 'activities');

CREATE FUNCTION track_button_click(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_track_button_click(input), 'activity', 'activities');

CREATE FUNCTION submit_form(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_submit_form(input), 'activity', 'activities');
