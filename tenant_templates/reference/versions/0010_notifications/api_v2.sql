CREATE VIEW notifications WITH (security_invoker = true) AS
SELECT tenant_id, id, user_id, type, created_at, read_at, data
FROM v_notification;

CREATE FUNCTION like_post(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_like_post(input), 'post', 'posts');

CREATE FUNCTION follow_person(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_follow_person(input), 'person', 'people');

CREATE FUNCTION announce(input jsonb) RETURNS jsonb
RETURN fn_announce(input);

CREATE FUNCTION read_notification(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_read_notification(input), 'notification', 'notifications');

CREATE FUNCTION read_all_notifications(input jsonb) RETURNS jsonb
RETURN fn_read_all_notifications(input);

CREATE FUNCTION count_unread_notifications(input jsonb) RETURNS jsonb
STABLE
RETURN fn_count_unread_notifications(input);

CREATE FUNCTION purge_notifications(input jsonb) RETURNS jsonb
RETURN fn_purge_notifications(input);

CREATE FUNCTION report_dangling_notifications(input jsonb) RETURNS jsonb
STABLE
RETURN fn_report_dangling_notifications(input);

CREATE OR REPLACE FUNCTION create_comment(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_comment_and_notify(input), 'comment', 'comments');
