-- Notifications about whatever happened to whomever: one inbox for several kinds of things.

CREATE TABLE tb_post_like (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    post_id uuid NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, post_id, user_id),
    FOREIGN KEY (tenant_id, post_id) REFERENCES tb_post (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES tb_user (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX tb_post_like_user_id ON tb_post_like (tenant_id, user_id);
SELECT tenancy.protect_table('tb_post_like');

CREATE TABLE tb_follow (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    followed_id uuid NOT NULL,
    follower_id uuid NOT NULL CHECK (follower_id <> followed_id),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, followed_id, follower_id),
    FOREIGN KEY (tenant_id, followed_id) REFERENCES tb_user (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, follower_id) REFERENCES tb_user (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX tb_follow_follower_id ON tb_follow (tenant_id, follower_id);
SELECT tenancy.protect_table('tb_follow');

-- The closed lists: each type says what it is about and which keys its data has. `actor_name` is what the message falls
-- back on when the actor is gone.
CREATE TABLE tb_notification (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    type text NOT NULL,
    actor_id uuid,
    entity_type text,
    entity_id uuid,
    data jsonb NOT NULL DEFAULT '{}',
    read_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES tb_user (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, actor_id) REFERENCES tb_user (tenant_id, id) ON DELETE SET NULL (actor_id),
    CONSTRAINT tb_notification_entity CHECK ((entity_type IS NULL) = (entity_id IS NULL)),
    CONSTRAINT tb_notification_data CHECK (jsonb_typeof(data) = 'object'),
    CONSTRAINT tb_notification_type CHECK (
        CASE type
            WHEN 'post_liked' THEN entity_type = 'Post' AND jsonb_typeof(data -> 'actor_name') = 'string'
            WHEN 'post_commented' THEN entity_type = 'Comment' AND jsonb_typeof(data -> 'actor_name') = 'string'
            WHEN 'new_follower' THEN entity_type = 'User' AND jsonb_typeof(data -> 'actor_name') = 'string'
            WHEN 'announcement' THEN entity_type IS NULL AND jsonb_typeof(data -> 'text') = 'string'
            ELSE false
        END IS TRUE  -- a null would pass
    )
);
CREATE INDEX tb_notification_newest ON tb_notification (tenant_id, user_id, created_at, id);
CREATE INDEX tb_notification_unread ON tb_notification (tenant_id, user_id, created_at, id) WHERE read_at IS NULL;
CREATE INDEX tb_notification_created_at ON tb_notification (tenant_id, created_at);
CREATE INDEX tb_notification_actor_id ON tb_notification (tenant_id, actor_id);
CREATE INDEX tb_notification_subject ON tb_notification (tenant_id, entity_type, entity_id);
SELECT tenancy.protect_table('tb_notification');

-- Everybody has his own inbox only. What an entry is about is looked up with the rights of the reader: `hidden` when it
-- is there and not for him, `deleted` when it is gone.
CREATE VIEW v_notification WITH (security_invoker = true) AS
SELECT
    n.tenant_id,
    n.id,
    n.user_id,
    n.type,
    n.created_at,
    n.read_at,
    jsonb_build_object(
        '__typename', 'Notification',
        'id', n.id,
        'type', n.type,
        'read', n.read_at IS NOT NULL,
        'read_at', n.read_at,
        'created_at', n.created_at,
        'actor', CASE WHEN n.type <> 'announcement' THEN coalesce(
            actor.card, '{"__typename": "UserCard", "id": null, "name": "[deleted]"}'
        ) END,
        'message', CASE n.type
            WHEN 'post_liked' THEN coalesce(actor.card ->> 'name', n.data ->> 'actor_name') || ' liked your post'
            WHEN 'post_commented' THEN
                coalesce(actor.card ->> 'name', n.data ->> 'actor_name') || ' commented on your post'
            WHEN 'new_follower' THEN coalesce(actor.card ->> 'name', n.data ->> 'actor_name') || ' follows you'
            WHEN 'announcement' THEN n.data ->> 'text'
        END,
        'entity', CASE n.entity_type
            WHEN 'Post' THEN coalesce(
                (
                    SELECT jsonb_build_object(
                        '__typename', 'Post', 'state', 'ok', 'id', p.id, 'title', p.title, 'author', p.data -> 'author')
                    FROM v_post AS p
                    WHERE p.tenant_id = n.tenant_id AND p.id = n.entity_id
                ),
                jsonb_build_object('__typename', 'Post', 'state', CASE WHEN EXISTS (
                    SELECT FROM tb_post AS p WHERE p.tenant_id = n.tenant_id AND p.id = n.entity_id
                ) THEN 'hidden' ELSE 'deleted' END)
            )
            WHEN 'Comment' THEN coalesce(
                (
                    SELECT jsonb_build_object(
                        '__typename', 'Comment', 'state', 'ok', 'id', m.id, 'post_id', m.post_id,
                        'content', left(m.data ->> 'content', 100), 'author', m.data -> 'author')
                    FROM v_comment AS m
                    WHERE m.tenant_id = n.tenant_id AND m.id = n.entity_id
                ),
                jsonb_build_object('__typename', 'Comment', 'state', CASE WHEN EXISTS (
                    SELECT FROM tb_comment AS m WHERE m.tenant_id = n.tenant_id AND m.id = n.entity_id
                ) THEN 'hidden' ELSE 'deleted' END)
            )
            WHEN 'User' THEN coalesce(
                (
                    SELECT jsonb_build_object('__typename', 'User', 'state', 'ok', 'user', c.data)
                    FROM v_author_card AS c
                    WHERE c.tenant_id = n.tenant_id AND c.id = n.entity_id
                ),
                jsonb_build_object('__typename', 'User', 'state', CASE WHEN EXISTS (
                    SELECT FROM tb_user AS u WHERE u.tenant_id = n.tenant_id AND u.id = n.entity_id
                ) THEN 'hidden' ELSE 'deleted' END)
            )
        END
    ) AS data
FROM tb_notification AS n
CROSS JOIN LATERAL (
    SELECT (SELECT c.data FROM v_author_card AS c WHERE c.tenant_id = n.tenant_id AND c.id = n.actor_id) AS card
) AS actor
WHERE n.user_id = tenancy.current_user_id();

-- Entries whose subject is gone: they stay in the inboxes, and this is the list of them.
CREATE VIEW v_dangling_notification WITH (security_invoker = true) AS
SELECT n.tenant_id, n.id, n.type, n.entity_type, n.entity_id
FROM tb_notification AS n
WHERE CASE n.entity_type
    WHEN 'Post' THEN NOT EXISTS (SELECT FROM tb_post AS p WHERE p.tenant_id = n.tenant_id AND p.id = n.entity_id)
    WHEN 'Comment' THEN NOT EXISTS (SELECT FROM tb_comment AS m WHERE m.tenant_id = n.tenant_id AND m.id = n.entity_id)
    WHEN 'User' THEN NOT EXISTS (SELECT FROM tb_user AS u WHERE u.tenant_id = n.tenant_id AND u.id = n.entity_id)
    ELSE false
END;
