-- One feed over everything that a user does. A new kind is a table, a branch of the view and an entry in template.toml.

CREATE TABLE tb_page_view (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    page_url text NOT NULL CHECK (length(page_url) BETWEEN 1 AND 2000),
    duration_seconds integer CHECK (duration_seconds >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES tb_user (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX tb_page_view_created_at ON tb_page_view (tenant_id, created_at, id);
CREATE INDEX tb_page_view_user_id ON tb_page_view (tenant_id, user_id, created_at, id);
SELECT tenancy.protect_table('tb_page_view');

CREATE TABLE tb_button_click (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    button text NOT NULL CHECK (length(button) BETWEEN 1 AND 100),
    page_url text NOT NULL CHECK (length(page_url) BETWEEN 1 AND 2000),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES tb_user (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX tb_button_click_created_at ON tb_button_click (tenant_id, created_at, id);
CREATE INDEX tb_button_click_user_id ON tb_button_click (tenant_id, user_id, created_at, id);
SELECT tenancy.protect_table('tb_button_click');

-- `fields` may hold anything that people type into forms, passwords too. It is nobody's business but the form's.
CREATE TABLE tb_form_submission (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    form text NOT NULL CHECK (length(form) BETWEEN 1 AND 100),
    fields jsonb NOT NULL CHECK (jsonb_typeof(fields) = 'object'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES tb_user (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX tb_form_submission_created_at ON tb_form_submission (tenant_id, created_at, id);
CREATE INDEX tb_form_submission_user_id ON tb_form_submission (tenant_id, user_id, created_at, id);
SELECT tenancy.protect_table('tb_form_submission');

-- The register of template.toml, [activity_types]: what is not listed as a detail is not in the feed.
SELECT tenancy.create_union_feed('v_activity', '{
    "button_click": {"table": "tb_button_click", "user_column": "user_id", "details": ["button", "page_url"]},
    "form_submission": {"table": "tb_form_submission", "user_column": "user_id", "details": ["form"]},
    "page_view": {"table": "tb_page_view", "user_column": "user_id", "details": ["page_url", "duration_seconds"]}
}');

CREATE FUNCTION fn_track_page_view(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "page_url": {"type": "string", "required": true, "min": 1, "max": 2000},
        "duration_seconds": {"type": "integer", "min": 0, "max": 86400}
    }');
    actor uuid;
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    actor := fn_author();
    IF actor IS NULL THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only users of this tenant leave activities.');
    END IF;
    INSERT INTO tb_page_view (user_id, page_url, duration_seconds)
    VALUES (actor, input ->> 'page_url', (input ->> 'duration_seconds')::integer)
    RETURNING id INTO new_id;
    RETURN tenancy.mutation_result(true, 'created', 'The page view was recorded.', jsonb_build_object('id', new_id));
END
$$;

CREATE FUNCTION fn_track_button_click(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "button": {"type": "string", "required": true, "min": 1, "max": 100},
        "page_url": {"type": "string", "required": true, "min": 1, "max": 2000}
    }');
    actor uuid;
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    actor := fn_author();
    IF actor IS NULL THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only users of this tenant leave activities.');
    END IF;
    INSERT INTO tb_button_click (user_id, button, page_url)
    VALUES (actor, input ->> 'button', input ->> 'page_url')
    RETURNING id INTO new_id;
    RETURN tenancy.mutation_result(true, 'created', 'The click was recorded.', jsonb_build_object('id', new_id));
END
$$;

CREATE FUNCTION fn_submit_form(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "form": {"type": "string", "required": true, "min": 1, "max": 100},
        "fields": {"type": "object", "required": true}
    }');
    actor uuid;
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    actor := fn_author();
    IF actor IS NULL THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only users of this tenant leave activities.');
    END IF;
    INSERT INTO tb_form_submission (user_id, form, fields)
    VALUES (actor, input ->> 'form', input -> 'fields')
    RETURNING id INTO new_id;
    RETURN tenancy.mutation_result(true, 'created', 'The form was submitted.', jsonb_build_object('id', new_id));
END
$$;
