-- Posts and comments, and the numbers of a post kept in step with them.

CREATE TABLE tb_post (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    author_id uuid,
    title text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    content text NOT NULL CHECK (length(content) BETWEEN 1 AND 20000),
    is_private boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, author_id) REFERENCES tb_user (tenant_id, id) ON DELETE SET NULL (author_id)
);
CREATE INDEX tb_post_created_at ON tb_post (tenant_id, created_at, id);
CREATE INDEX tb_post_author_id ON tb_post (tenant_id, author_id);
SELECT tenancy.protect_table('tb_post');

CREATE TABLE tb_comment (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    post_id uuid NOT NULL,
    author_id uuid,
    content text NOT NULL CHECK (length(content) BETWEEN 1 AND 5000),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- several of one transaction keep their order
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, post_id) REFERENCES tb_post (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, author_id) REFERENCES tb_user (tenant_id, id) ON DELETE SET NULL (author_id)
);
CREATE INDEX tb_comment_created_at ON tb_comment (tenant_id, created_at, id);
CREATE INDEX tb_comment_post_id ON tb_comment (tenant_id, post_id, created_at, id);
CREATE INDEX tb_comment_author_id ON tb_comment (tenant_id, author_id, created_at, id);
SELECT tenancy.protect_table('tb_comment');

-- Private posts exist for their authors only, and so does all that belongs to them.
CREATE VIEW v_post WITH (security_invoker = true) AS
SELECT
    p.tenant_id,
    p.id,
    p.author_id,
    p.title,
    p.is_private,
    p.created_at,
    jsonb_build_object(
        '__typename', 'Post',
        'id', p.id,
        'title', p.title,
        'content', p.content,
        'is_private', p.is_private,
        'author', coalesce(
            (SELECT c.data FROM v_author_card AS c WHERE c.tenant_id = p.tenant_id AND c.id = p.author_id),
            '{"__typename": "UserCard", "id": null, "name": "[deleted]"}'
        ),
        'created_at', p.created_at
    ) AS data
FROM tb_post AS p
WHERE NOT p.is_private OR p.author_id = tenancy.current_user_id();

CREATE VIEW v_comment WITH (security_invoker = true) AS
SELECT
    m.tenant_id,
    m.id,
    m.post_id,
    m.author_id,
    m.created_at,
    jsonb_build_object(
        '__typename', 'Comment',
        'id', m.id,
        'post_id', m.post_id,
        'content', m.content,
        'author', coalesce(
            (SELECT c.data FROM v_author_card AS c WHERE c.tenant_id = m.tenant_id AND c.id = m.author_id),
            '{"__typename": "UserCard", "id": null, "name": "[deleted]"}'
        ),
        'created_at', m.created_at
    ) AS data
FROM tb_comment AS m
WHERE EXISTS (SELECT FROM v_post AS p WHERE p.tenant_id = m.tenant_id AND p.id = m.post_id);

-- The card as everybody may see it, for documents that are stored: people who are hidden from somebody have none there.
CREATE VIEW v_public_card WITH (security_invoker = true) AS
SELECT c.tenant_id, c.id, c.data
FROM v_user_card AS c
JOIN tb_user AS u ON u.tenant_id = c.tenant_id AND u.id = c.id
WHERE u.listed AND NOT u.suspended;

-- What tv_post_stats holds, computed: it reads tables, since a projection is the same for every viewer.
CREATE VIEW v_post_stats WITH (security_invoker = true) AS
SELECT
    p.tenant_id,
    p.id,
    jsonb_build_object(
        '__typename', 'PostStats',
        'id', p.id,
        'title', p.title,
        'is_private', p.is_private,
        'author', coalesce(
            (SELECT c.data FROM v_public_card AS c WHERE c.tenant_id = p.tenant_id AND c.id = p.author_id),
            '{"__typename": "UserCard", "id": null, "name": "[deleted]"}'
        ),
        'comment_count', (
            SELECT count(*) FROM tb_comment AS m WHERE m.tenant_id = p.tenant_id AND m.post_id = p.id
        ),
        'latest_comments', (
            SELECT coalesce(jsonb_agg(latest.data ORDER BY latest.created_at DESC, latest.id DESC), '[]')
            FROM (
                SELECT
                    m.id,
                    m.created_at,
                    jsonb_build_object(
                        '__typename', 'Comment',
                        'id', m.id,
                        'content', m.content,
                        'author', coalesce(
                            (SELECT c.data FROM v_public_card AS c WHERE c.tenant_id = m.tenant_id AND c.id = m.author_id),
                            '{"__typename": "UserCard", "id": null, "name": "[deleted]"}'
                        ),
                        'created_at', m.created_at
                    ) AS data
                FROM tb_comment AS m
                WHERE m.tenant_id = p.tenant_id AND m.post_id = p.id
                ORDER BY m.created_at DESC, m.id DESC
                LIMIT 5
            ) AS latest
        ),
        'created_at', p.created_at,
        'last_activity_at', greatest(p.created_at, (
            SELECT max(m.created_at) FROM tb_comment AS m WHERE m.tenant_id = p.tenant_id AND m.post_id = p.id
        ))
    ) AS data
FROM tb_post AS p;

SELECT tenancy.create_change_feed();

CREATE TABLE tv_post_stats (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL,
    data jsonb,  -- null: the post is gone, and its versions go on should it come back
    version bigint NOT NULL,
    synced_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
SELECT tenancy.protect_table('tv_post_stats', 'functions');
SELECT tenancy.publish_changes('tv_post_stats');

SELECT tenancy.create_idempotency_keys();

CREATE FUNCTION fn_sync_post_stats(keys uuid[]) RETURNS TABLE (key uuid, outcome text)
LANGUAGE sql VOLATILE SECURITY DEFINER
BEGIN ATOMIC
    SELECT s.key, s.outcome FROM tenancy.sync_projection('tv_post_stats', 'v_post_stats', 'tb_post', keys) AS s;
END;

-- The posts that show a user's card, or would when a later comment goes.
CREATE FUNCTION fn_sync_posts_of_user(user_id uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM FROM fn_sync_post_stats(ARRAY(
        SELECT p.id FROM tb_post AS p
        WHERE p.tenant_id = tenancy.current_tenant_id() AND p.author_id = fn_sync_posts_of_user.user_id
        UNION
        SELECT m.post_id FROM tb_comment AS m
        WHERE m.tenant_id = tenancy.current_tenant_id() AND m.author_id = fn_sync_posts_of_user.user_id
    ));
END
$$;

-- The current user when he is one who may write, locked against a change: a card that is being embedded must not change
-- before the projection is committed, since whoever changes it would not know of the new row.
CREATE FUNCTION fn_author() RETURNS uuid
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    author uuid;
BEGIN
    SELECT u.id INTO author
    FROM tb_user AS u
    WHERE u.tenant_id = tenancy.current_tenant_id() AND u.id = tenancy.current_user_id() AND NOT u.suspended
    FOR SHARE;
    RETURN author;
END
$$;

CREATE FUNCTION fn_may_moderate() RETURNS boolean
STABLE PARALLEL SAFE
RETURN tenancy.current_roles() && ARRAY['moderator', 'admin'];

-- Every function below locks in one order: the user, the post, the comment, the projection.

CREATE FUNCTION fn_create_post(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "title": {"type": "string", "required": true, "min": 1, "max": 200},
        "content": {"type": "string", "required": true, "min": 1, "max": 20000},
        "is_private": {"type": "boolean"}
    }');
    author uuid;
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    author := fn_author();
    IF author IS NULL THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only users of this tenant write posts.');
    END IF;

    INSERT INTO tb_post (author_id, title, content, is_private)
    VALUES (author, input ->> 'title', input ->> 'content', coalesce((input ->> 'is_private')::boolean, false))
    RETURNING id INTO new_id;
    PERFORM FROM fn_sync_post_stats(ARRAY[new_id]);
    RETURN tenancy.mutation_result(true, 'created', 'The post was created.', jsonb_build_object('id', new_id));
END
$$;

-- Fields that are not given, or null, stay as they are.
CREATE FUNCTION fn_update_post(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "title": {"type": "string", "min": 1, "max": 200},
        "content": {"type": "string", "min": 1, "max": 20000},
        "is_private": {"type": "boolean"}
    }');
    post record;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT v.id, v.author_id INTO post
    FROM v_post AS v
    WHERE v.tenant_id = tenancy.current_tenant_id() AND v.id = (input ->> 'id')::uuid;
    IF post.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such post.');
    ELSIF post.author_id IS DISTINCT FROM tenancy.current_user_id() THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only its author changes a post.');
    END IF;

    UPDATE tb_post SET
        title = coalesce(input ->> 'title', title),
        content = coalesce(input ->> 'content', content),
        is_private = coalesce((input ->> 'is_private')::boolean, is_private)
    WHERE tenant_id = tenancy.current_tenant_id() AND id = post.id AND author_id = tenancy.current_user_id();
    IF NOT found THEN  -- deleted since
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such post.');
    END IF;
    PERFORM FROM fn_sync_post_stats(ARRAY[post.id]);
    RETURN tenancy.mutation_result(true, 'updated', 'The post was updated.', jsonb_build_object('id', post.id));
END
$$;

CREATE FUNCTION fn_delete_post(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true}
    }');
    post record;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT v.id, v.author_id INTO post
    FROM v_post AS v
    WHERE v.tenant_id = tenancy.current_tenant_id() AND v.id = (input ->> 'id')::uuid;
    IF post.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such post.');
    ELSIF post.author_id IS DISTINCT FROM tenancy.current_user_id() AND NOT fn_may_moderate() THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only its author or a moderator deletes a post.');
    END IF;

    DELETE FROM tb_post WHERE tenant_id = tenancy.current_tenant_id() AND id = post.id;
    IF NOT found THEN  -- by somebody else since
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such post.');
    END IF;
    PERFORM FROM fn_sync_post_stats(ARRAY[post.id]);
    RETURN tenancy.mutation_result(true, 'deleted', 'The post was deleted.', jsonb_build_object('id', post.id));
END
$$;

CREATE FUNCTION fn_create_comment(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "post_id": {"type": "uuid", "required": true},
        "content": {"type": "string", "required": true, "min": 1, "max": 5000}
    }');
    author uuid;
    post uuid;
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    author := fn_author();
    IF author IS NULL THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only users of this tenant write comments.');
    END IF;

    SELECT p.id INTO post
    FROM tb_post AS p
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'post_id')::uuid
      AND (NOT p.is_private OR p.author_id = author)
    FOR NO KEY UPDATE;
    IF post IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such post.');
    END IF;

    INSERT INTO tb_comment (post_id, author_id, content) VALUES (post, author, input ->> 'content')
    RETURNING id INTO new_id;
    PERFORM FROM fn_sync_post_stats(ARRAY[post]);
    RETURN tenancy.mutation_result(true, 'created', 'The comment was created.', jsonb_build_object('id', new_id));
END
$$;

CREATE FUNCTION fn_delete_comment(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true}
    }');
    comment record;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT m.id, m.post_id, m.author_id INTO comment
    FROM v_comment AS m
    WHERE m.tenant_id = tenancy.current_tenant_id() AND m.id = (input ->> 'id')::uuid;
    IF comment.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such comment.');
    ELSIF comment.author_id IS DISTINCT FROM tenancy.current_user_id() AND NOT fn_may_moderate() THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only its author or a moderator deletes a comment.');
    END IF;

    PERFORM FROM tb_post
    WHERE tenant_id = tenancy.current_tenant_id() AND id = comment.post_id
    FOR NO KEY UPDATE;
    DELETE FROM tb_comment WHERE tenant_id = tenancy.current_tenant_id() AND id = comment.id;
    IF NOT found THEN  -- deleted since
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such comment.');
    END IF;
    PERFORM FROM fn_sync_post_stats(ARRAY[comment.post_id]);
    RETURN tenancy.mutation_result(true, 'deleted', 'The comment was deleted.', jsonb_build_object('id', comment.id));
END
$$;

-- A person's card stands in the projections of posts, which from this version on follow.
CREATE FUNCTION fn_update_person_and_posts(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    result jsonb := fn_update_person(input);
BEGIN
    IF (result ->> 'success')::boolean THEN
        PERFORM fn_sync_posts_of_user((result -> 'data' ->> 'id')::uuid);
    END IF;
    RETURN result;
END
$$;
