import acme_guard
import house.llm
from house.llm import SafeClient, client, safe, wrapped

client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
safe(timeout=3).messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
wrapped.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
house.llm.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
SafeClient("k").messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
acme_guard.bare().messages.create(model="m", max_tokens=1, messages=[])  # expect: client unguarded, call unguarded
