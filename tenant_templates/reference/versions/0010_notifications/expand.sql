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

-- Tells `recipient` that the current user did something; nobody is told of himself.
CREATE FUNCTION fn_notify(recipient uuid, type text, entity_type text, entity_id uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO tb_notification (user_id, type, actor_id, entity_type, entity_id, data)
    SELECT recipient, fn_notify.type, u.id, fn_notify.entity_type, fn_notify.entity_id,
           jsonb_build_object('actor_name', u.name)
    FROM tb_user AS u
    WHERE u.tenant_id = tenancy.current_tenant_id() AND u.id = tenancy.current_user_id() AND recipient <> u.id;
END
$$;

-- To like a post twice is to like it once, and to tell its author once.
CREATE FUNCTION fn_like_post(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true}
    }');
    liker uuid;
    post tb_post;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    liker := fn_author();
    IF liker IS NULL THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only users of this tenant like posts.');
    END IF;

    SELECT p.* INTO post
    FROM tb_post AS p
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'id')::uuid
      AND (NOT p.is_private OR p.author_id = liker)
    FOR KEY SHARE;
    IF post.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such post.');
    END IF;

    INSERT INTO tb_post_like (post_id, user_id) VALUES (post.id, liker) ON CONFLICT DO NOTHING;
    IF found THEN
        PERFORM fn_notify(post.author_id, 'post_liked', 'Post', post.id);
    END IF;
    RETURN tenancy.mutation_result(true, 'updated', 'The post is liked.', jsonb_build_object('id', post.id));
END
$$;

CREATE FUNCTION fn_follow_person(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true}
    }');
    follower uuid;
    followed uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    follower := fn_author();
    IF follower IS NULL THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only users of this tenant follow people.');
    END IF;

    SELECT p.id INTO followed
    FROM v_person AS p
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'id')::uuid;
    IF followed IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such person.');
    ELSIF followed = follower THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'Nobody follows himself.');
    END IF;

    INSERT INTO tb_follow (followed_id, follower_id) VALUES (followed, follower) ON CONFLICT DO NOTHING;
    IF found THEN
        PERFORM fn_notify(followed, 'new_follower', 'User', follower);
    END IF;
    RETURN tenancy.mutation_result(true, 'updated', 'The person is followed.', jsonb_build_object('id', followed));
END
$$;

-- A word to everybody, or to one user, by those who run the place.
CREATE FUNCTION fn_announce(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "text": {"type": "string", "required": true, "min": 1, "max": 500},
        "user_id": {"type": "uuid"}
    }');
    told bigint;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    ELSIF NOT 'admin' = ANY (tenancy.current_roles()) THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only an admin announces something.');
    END IF;

    INSERT INTO tb_notification (user_id, type, data)
    SELECT u.id, 'announcement', jsonb_build_object('text', input ->> 'text')
    FROM tb_user AS u
    WHERE u.tenant_id = tenancy.current_tenant_id()
      AND (input ->> 'user_id' IS NULL OR u.id = (input ->> 'user_id')::uuid);
    GET DIAGNOSTICS told = ROW_COUNT;
    IF told = 0 AND input ->> 'user_id' IS NOT NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such user.');
    END IF;
    RETURN tenancy.mutation_result(true, 'created', 'It was announced.', jsonb_build_object('count', told));
END
$$;

-- Read once is read: the time of the first reading stays.
CREATE FUNCTION fn_read_notification(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true}
    }');
    known uuid;
    marked bigint;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT n.id INTO known
    FROM tb_notification AS n
    WHERE n.tenant_id = tenancy.current_tenant_id() AND n.user_id = tenancy.current_user_id()
      AND n.id = (input ->> 'id')::uuid;
    IF known IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such notification.');
    END IF;
    UPDATE tb_notification SET read_at = now()
    WHERE tenant_id = tenancy.current_tenant_id() AND id = known AND read_at IS NULL;
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN tenancy.mutation_result(
        true, 'updated', 'The notification is read.', jsonb_build_object('id', known, 'count', marked));
END
$$;

CREATE FUNCTION fn_read_all_notifications(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{}');
    marked bigint;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    UPDATE tb_notification SET read_at = now()
    WHERE tenant_id = tenancy.current_tenant_id() AND user_id = tenancy.current_user_id() AND read_at IS NULL;
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN tenancy.mutation_result(
        true, 'updated', 'All notifications are read.', jsonb_build_object('count', marked));
END
$$;

CREATE FUNCTION fn_count_unread_notifications(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{}');
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    RETURN tenancy.mutation_result(true, 'ok', 'Unread notifications were counted.', jsonb_build_object('count', (
        SELECT count(*)
        FROM tb_notification AS n
        WHERE n.tenant_id = tenancy.current_tenant_id() AND n.user_id = tenancy.current_user_id() AND n.read_at IS NULL
    )));
END
$$;

-- Retention: whatever is older goes, read or not, in bites of at most 10,000.
CREATE FUNCTION fn_purge_notifications(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "older_than_days": {"type": "integer", "required": true, "min": 1, "max": 36500}
    }');
    purged bigint;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    ELSIF NOT 'admin' = ANY (tenancy.current_roles()) THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only an admin purges notifications.');
    END IF;
    DELETE FROM tb_notification
    WHERE tenant_id = tenancy.current_tenant_id() AND id IN (
        SELECT n.id
        FROM tb_notification AS n
        WHERE n.tenant_id = tenancy.current_tenant_id()
          AND n.created_at < now() - make_interval(days => (input ->> 'older_than_days')::integer)
        ORDER BY n.created_at
        LIMIT 10000
    );
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN tenancy.mutation_result(
        true, 'deleted', 'Old notifications were purged.', jsonb_build_object('count', purged));
END
$$;

CREATE FUNCTION fn_report_dangling_notifications(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{}');
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    ELSIF NOT 'admin' = ANY (tenancy.current_roles()) THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only an admin asks for the report.');
    END IF;
    RETURN tenancy.mutation_result(true, 'ok', 'These refer to what is gone.', (
        SELECT jsonb_build_object(
            'count', count(*),
            'items', coalesce(jsonb_agg(jsonb_build_object(
                'id', d.id, 'type', d.type, 'entity_type', d.entity_type, 'entity_id', d.entity_id
            ) ORDER BY d.id) FILTER (WHERE d.position <= 100), '[]')
        )
        FROM (
            SELECT n.*, row_number() OVER (ORDER BY n.id) AS position
            FROM v_dangling_notification AS n
            WHERE n.tenant_id = tenancy.current_tenant_id()
        ) AS d
    ));
END
$$;

-- A comment tells the author of the post, from this version on.
CREATE FUNCTION fn_create_comment_and_notify(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    result jsonb := fn_create_comment(input);
BEGIN
    IF (result ->> 'success')::boolean THEN
        PERFORM fn_notify(p.author_id, 'post_commented', 'Comment', (result -> 'data' ->> 'id')::uuid)
        FROM tb_post AS p
        WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'post_id')::uuid
          AND p.author_id IS NOT NULL;
    END IF;
    RETURN result;
END
$$;
