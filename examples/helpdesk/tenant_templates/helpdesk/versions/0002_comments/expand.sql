CREATE TABLE tb_comment (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    ticket_id uuid NOT NULL,
    body text NOT NULL CHECK (length(body) BETWEEN 1 AND 5000),
    author_id uuid NOT NULL DEFAULT tenancy.current_user_id(),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES tb_ticket (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX tb_comment_ticket_id ON tb_comment (tenant_id, ticket_id, created_at, id);
SELECT tenancy.protect_table('tb_comment');
