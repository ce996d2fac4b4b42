"""verifiers before 0.4: a rubric with a reward from Assay."""

import verifiers as vf

from assay_client.trainers.verifiers import RubricReward

rubric = vf.Rubric(
    funcs=[RubricReward("code@2", on_failure="raise", url="http://127.0.0.1:8000")], weights=[1.0]
)
