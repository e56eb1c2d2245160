import shop
import shop.inner.clients as deep
from shop import *
from shop import unguarded_client as u

safe_client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
u.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
shop.unguarded_client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
deep.safe.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
shop.inner.clients.raw.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
