"""What tutorials show: FastAPI, an AsyncSession per request, set_config, the ORM, a response model, python-jose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.rivals import rival
from control_plane.pools.connect import connect

LIMIT = 100

given = rival()


async def _open() -> Any:
    return await connect(given.dsn, application_name="benchmark", server_settings={"jit": "off"})


engine = create_async_engine("postgresql+asyncpg://", async_creator=_open, pool_size=given.pool_size, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)
bearer = HTTPBearer()
app = FastAPI()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "tb_user"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    name: Mapped[str]
    created_at: Mapped[datetime]


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    typename: Literal["User"] = Field("User", serialization_alias="__typename")
    id: UUID
    email: str
    name: str = Field(serialization_alias="fullName")
    created_at: datetime


async def session(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
) -> AsyncIterator[AsyncSession]:
    try:
        claims = jwt.decode(
            credentials.credentials,
            given.signing_key,
            algorithms=["HS256"],
            audience=given.audience,
            issuer=given.issuer,
        )
    except JWTError as error:
        raise HTTPException(401) from error
    async with sessions() as opened, opened.begin():
        await opened.execute(
            text("SELECT set_config('app.current_tenant_id', :tenant, true)"), {"tenant": claims["tenant_id"]}
        )
        yield opened


@app.get("/api/v1/users", response_model=list[UserOut])
async def users(session: Annotated[AsyncSession, Depends(session)]) -> Any:
    return (await session.scalars(select(User).order_by(User.created_at, User.id).limit(LIMIT))).all()
