-- Telling, reading and forgetting.

-- Tells `recipient` that the current user did something; nobody is told of himself, nor who is just being deleted.
CREATE FUNCTION fn_notify(recipient uuid, type text, entity_type text, entity_id uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO tb_notification (user_id, type, actor_id, entity_type, entity_id, data)
    SELECT told.id, fn_notify.type, u.id, fn_notify.entity_type, fn_notify.entity_id,
           jsonb_build_object('actor_name', u.name)
    FROM tb_user AS u
    JOIN tb_user AS told ON told.tenant_id = u.tenant_id AND told.id = recipient AND told.id <> u.id
    WHERE u.tenant_id = tenancy.current_tenant_id() AND u.id = tenancy.current_user_id()
    FOR KEY SHARE;
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

    SELECT u.id INTO followed
    FROM tb_user AS u
    JOIN v_person AS p ON p.tenant_id = u.tenant_id AND p.id = u.id
    WHERE u.tenant_id = tenancy.current_tenant_id() AND u.id = (input ->> 'id')::uuid
    FOR KEY SHARE OF u;
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
      AND (input ->> 'user_id' IS NULL OR u.id = (input ->> 'user_id')::uuid)
    FOR KEY SHARE;
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
