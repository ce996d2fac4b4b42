"""ms-swift: `swift rlhf --rlhf_type grpo --external_plugins plugin.py --reward_funcs assay …`."""

from functools import partial

from swift.rewards import orms

from assay_client.trainers.ms_swift import Reward

orms["assay"] = partial(Reward, model="code@2", on_failure="skip", url="http://127.0.0.1:8000")
