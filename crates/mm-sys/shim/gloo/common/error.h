// ProcessGroupGloo.hpp includes it and needs nothing of it.
#pragma once
